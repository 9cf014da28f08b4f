{{/*
Templates of both components get (dict "root" $ "name" "dispatcher"|"node").
*/}}

{{- define "stentor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40: room for "-dispatcher-headless" in the 63 of a DNS label. */}}
{{- define "stentor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "stentor.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "stentor.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stentor.componentName" -}}
{{ include "stentor.fullname" .root }}-{{ .name }}
{{- end -}}

{{- define "stentor.image" -}}
{{- with .Values.image -}}
{{- $registry := default .registry $.Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}

{{- define "stentor.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "stentor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: stentor
{{- end -}}

{{- define "stentor.labels" -}}
{{ include "stentor.commonLabels" .root }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "stentor.selector" -}}
app.kubernetes.io/name: {{ include "stentor.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "stentor.serviceAccount" -}}
{{- $account := (index .root.Values .name).serviceAccount -}}
{{- if $account.create -}}
{{ default (include "stentor.componentName" .) $account.name }}
{{- else -}}
{{ default "default" $account.name }}
{{- end -}}
{{- end -}}

{{/* "StatefulSet" for the dispatcher that has a disk. */}}
{{- define "stentor.kind" -}}
{{- if and (eq .name "dispatcher") (eq .root.Values.store.type "lmdb") -}}
StatefulSet
{{- else -}}
Deployment
{{- end -}}
{{- end -}}

{{/* True if something else decides on the number of pods. */}}
{{- define "stentor.isAutoscaled" -}}
{{- $c := index .root.Values .name -}}
{{- if or $c.autoscaling.enabled (and $c.keda $c.keda.enabled) -}}true{{- end -}}
{{- end -}}

{{/* Most pods that there may be. */}}
{{- define "stentor.replicasMax" -}}
{{- $c := index .root.Values .name -}}
{{- if $c.autoscaling.enabled -}}
{{ $c.autoscaling.maxReplicas }}
{{- else if and $c.keda $c.keda.enabled -}}
{{ $c.keda.maxReplicaCount }}
{{- else -}}
{{ $c.replicaCount }}
{{- end -}}
{{- end -}}

{{- define "stentor.store" -}}
{{- if eq .Values.store.type "redis" -}}
{{ ternary "rediss" "redis" .Values.store.redis.tls.enabled }}://{{ .Values.store.redis.address }}
{{- else if eq .Values.store.type "lmdb" -}}
lmdb:/var/lib/stentor/store
{{- else -}}
memory:
{{- end -}}
{{- end -}}

{{/* The Secret of Redis's authority, if it is used. */}}
{{- define "stentor.storeTls" -}}
{{- with .Values.store -}}
{{- if and (eq .type "redis") .redis.tls.enabled -}}
{{ .redis.tls.secretName }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The scheme of links. */}}
{{- define "stentor.linkScheme" -}}
{{- ternary "tls+tcp" "tcp" (not (empty .Values.secrets.linkTls.name)) -}}
{{- end -}}

{{/*
Options in force, a map as YAML: what the chart decides, then config.options,
then the component's own. Names with - become those with _.
*/}}
{{- define "stentor.options" -}}
{{- $v := .root.Values -}}
{{- $options := dict -}}
{{- if eq .name "dispatcher" -}}
{{-   $_ := set $options "store" (include "stentor.store" .root) -}}
{{-   $_ := set $options "link_listen" (printf "%s://0.0.0.0:7071" (include "stentor.linkScheme" .root)) -}}
{{-   if include "stentor.storeTls" .root -}}
{{-     $_ := set $options "store_tls_ca" "/etc/stentor/store-tls/ca.crt" -}}
{{-     if $v.store.redis.tls.clientCertificate -}}
{{-       $_ := set $options "store_tls_cert" "/etc/stentor/store-tls/tls.crt" -}}
{{-       $_ := set $options "store_tls_key" "/etc/stentor/store-tls/tls.key" -}}
{{-     end -}}
{{-   end -}}
{{-   if $v.dispatcher.tls.secretName -}}
{{-     $_ := set $options "api_tls_cert" "/etc/stentor/tls/tls.crt" -}}
{{-     $_ := set $options "api_tls_key" "/etc/stentor/tls/tls.key" -}}
{{-     if $v.dispatcher.tls.clientCa -}}
{{-       $_ := set $options "api_tls_client_ca" "/etc/stentor/tls/ca.crt" -}}
{{-     end -}}
{{-   end -}}
{{- else -}}
{{-   $_ := set $options "dispatchers" (printf "dns:%s-dispatcher-headless:7071" (include "stentor.fullname" .root)) -}}
{{-   $_ := set $options "link_listen" (printf "%s://0.0.0.0:7080" (include "stentor.linkScheme" .root)) -}}
{{-   if $v.node.tls.secretName -}}
{{-     $_ := set $options "tls_cert" "/etc/stentor/tls/tls.crt" -}}
{{-     $_ := set $options "tls_key" "/etc/stentor/tls/tls.key" -}}
{{-   end -}}
{{- end -}}
{{- if $v.metrics.open -}}
{{-   $_ := set $options "metrics_open" true -}}
{{- end -}}
{{- if $v.secrets.linkTls.name -}}
{{-   $_ := set $options "link_tls_cert" "/etc/stentor/link-tls/tls.crt" -}}
{{-   $_ := set $options "link_tls_key" "/etc/stentor/link-tls/tls.key" -}}
{{-   $_ := set $options "link_tls_ca" "/etc/stentor/link-tls/ca.crt" -}}
{{-   $_ := set $options "link_tls_name" $v.secrets.linkTls.serverName -}}
{{- end -}}
{{- range $given := list $v.config.options (index $v .name).options -}}
{{-   range $key, $value := $given -}}
{{-     if not (kindIs "invalid" $value) -}}
{{-       $_ := set $options ($key | replace "-" "_") $value -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toYaml $options -}}
{{- end -}}

{{/* The file that --config names. */}}
{{- define "stentor.config" -}}
{{ include "stentor.options" . }}
{{- with .root.Values.config.rules }}
rules:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq .root.Values.auth "jwt" }}
auth:
  {{- toYaml .root.Values.config.auth | nindent 2 }}
{{- end }}
{{- end -}}

{{/* From SIGTERM's announcement to SIGKILL. */}}
{{- define "stentor.gracePeriod" -}}
{{- $c := index .root.Values .name -}}
{{- if not (kindIs "invalid" $c.terminationGracePeriodSeconds) -}}
{{ $c.terminationGracePeriodSeconds }}
{{- else -}}
{{- $options := include "stentor.options" . | fromYaml -}}
{{- $drain := dig "drain_seconds" (ternary 10 60 (eq .name "dispatcher")) $options -}}
{{ add $c.preStopSeconds $drain 15 }}
{{- end -}}
{{- end -}}

{{/* Of a node; 0: as many as it has cores. */}}
{{- define "stentor.workers" -}}
{{- $options := include "stentor.options" (dict "root" . "name" "node") | fromYaml -}}
{{ $options.workers | default 0 }}
{{- end -}}

{{/* Where others find the API. */}}
{{- define "stentor.apiUrl" -}}
{{ ternary "https" "http" (not (empty .Values.dispatcher.tls.secretName)) }}://{{ include "stentor.fullname" . }}-dispatcher:{{ .Values.dispatcher.service.port }}
{{- end -}}

{{/* What cannot work is refused by name. */}}
{{- define "stentor.refuse" -}}
{{- $v := .Values -}}
{{- $dispatchers := include "stentor.replicasMax" (dict "root" . "name" "dispatcher") | int -}}
{{- if and (ne $v.store.type "redis") (gt $dispatchers 1) -}}
{{-   fail (printf "store.type %s serves one dispatcher, not %d: set store.type to redis, or dispatcher.replicaCount to 1" $v.store.type $dispatchers) -}}
{{- end -}}
{{- if and (eq $v.store.type "redis") (not $v.store.redis.address) -}}
{{-   fail "store.type redis needs store.redis.address, such as redis:6379" -}}
{{- end -}}
{{- if and $v.store.redis.tls.secretName (not $v.store.redis.tls.enabled) -}}
{{-   fail "store.redis.tls.secretName does nothing without store.redis.tls.enabled=true" -}}
{{- end -}}
{{- if and $v.store.redis.tls.clientCertificate (not $v.store.redis.tls.secretName) -}}
{{-   fail "store.redis.tls.clientCertificate needs store.redis.tls.secretName, which holds it" -}}
{{- end -}}
{{- if and $v.node.autoscaling.enabled $v.node.keda.enabled -}}
{{-   fail "node.autoscaling and node.keda would fight over the number of nodes: enable one" -}}
{{- end -}}
{{- range $name := list "dispatcher" "node" -}}
{{-   $c := index $v $name -}}
{{-   if and $c.ingress.enabled (not $c.ingress.hosts) -}}
{{-     fail (printf "%s.ingress needs hosts" $name) -}}
{{-   end -}}
{{-   if and $c.httpRoute.enabled (not $c.httpRoute.parentRefs) -}}
{{-     fail (printf "%s.httpRoute needs parentRefs" $name) -}}
{{-   end -}}
{{- end -}}
{{- if and (eq $v.auth "jwt") (not $v.config.auth.keys) -}}
{{-   fail "auth jwt needs config.auth.keys, and secrets.authKeys that holds their files (auth: none lets everybody publish and listen)" -}}
{{- end -}}
{{- if and (eq $v.auth "jwt") $v.metrics.serviceMonitor.enabled (not (or $v.metrics.open $v.secrets.adminToken.name)) -}}
{{-   fail "metrics.serviceMonitor needs metrics.open or secrets.adminToken with auth jwt: /metrics wants a token with `admin: true`" -}}
{{- end -}}
{{- end -}}
