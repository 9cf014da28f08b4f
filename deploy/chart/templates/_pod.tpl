{{/* The pod of a component, spec.template of its workload. */}}
{{- define "stentor.pod" -}}
{{- $ := .root -}}
{{- $v := $.Values -}}
{{- $c := index $v .name -}}
{{- $component := . -}}
{{- $isDispatcher := eq .name "dispatcher" -}}
{{- $isLmdb := and $isDispatcher (eq $v.store.type "lmdb") -}}
metadata:
  # None of the chart's version: a new chart alone restarts no pod
  labels:
    {{- include "stentor.selector" . | nindent 4 }}
    app.kubernetes.io/part-of: stentor
    {{- with $c.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Rules, tokens' keys and the log level are read again by themselves
    checksum/config: {{ omit (include "stentor.options" . | fromYaml) "log_level" | toYaml | sha256sum }}
    {{- with $c.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  serviceAccountName: {{ include "stentor.serviceAccount" . }}
  automountServiceAccountToken: {{ $c.serviceAccount.automount }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "stentor.gracePeriod" . }}
  {{- with $c.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml $c.podSecurityContext | nindent 4 }}
  {{- with $c.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "stentor.image" $ }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command: [{{ ternary "stentor-dispatcher" "stentor-connnode" $isDispatcher }}]
      args:
        - --config=/etc/stentor/config/stentor.yaml
        {{- with $c.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: STENTOR_AUTH
          value: {{ $v.auth }}
        - name: STENTOR_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- if not $isDispatcher }}
        - name: STENTOR_LINK_ADVERTISE
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- end }}
        {{- if and $isDispatcher $v.secrets.storePassword.name }}
        - name: STENTOR_STORE_PASSWORD
          valueFrom:
            secretKeyRef:
              {{- toYaml $v.secrets.storePassword | nindent 14 }}
        {{- end }}
        {{- if $v.secrets.linkToken.name }}
        - name: STENTOR_LINK_TOKEN
          valueFrom:
            secretKeyRef:
              {{- toYaml $v.secrets.linkToken | nindent 14 }}
        {{- end }}
        {{- with $c.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $c.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if $isDispatcher }}
        - {name: api, containerPort: 7070}
        - {name: link, containerPort: 7071}
        - {name: admin, containerPort: 7072}
        {{- else }}
        - {name: http, containerPort: 8080}
        - {name: link, containerPort: 7080}
        - {name: admin, containerPort: 8081}
        {{- end }}
      {{- if gt (int $c.preStopSeconds) 0 }}
      # Until load balancers have heard that no more clients should come
      lifecycle: {preStop: {sleep: {seconds: {{ $c.preStopSeconds }}}}}
      {{- end }}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml $c.startupProbe | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml $c.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml $c.readinessProbe | nindent 8 }}
      securityContext:
        {{- toYaml $c.securityContext | nindent 8 }}
      resources:
        {{- toYaml $c.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/stentor/config, readOnly: true}
        {{- if and (eq $v.auth "jwt") $v.secrets.authKeys }}
        - {name: auth-keys, mountPath: /etc/stentor/auth, readOnly: true}
        {{- end }}
        {{- if $c.tls.secretName }}
        - {name: tls, mountPath: /etc/stentor/tls, readOnly: true}
        {{- end }}
        {{- if $v.secrets.linkTls.name }}
        - {name: link-tls, mountPath: /etc/stentor/link-tls, readOnly: true}
        {{- end }}
        {{- if and $isDispatcher (include "stentor.storeTls" $) }}
        - {name: store-tls, mountPath: /etc/stentor/store-tls, readOnly: true}
        {{- end }}
        {{- if $isLmdb }}
        - {name: store, mountPath: /var/lib/stentor}
        {{- end }}
        {{- with $c.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $c.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "stentor.componentName" . }}}
    {{- if and (eq $v.auth "jwt") $v.secrets.authKeys }}
    - name: auth-keys
      secret: {secretName: {{ $v.secrets.authKeys }}}
    {{- end }}
    {{- with $c.tls.secretName }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- with $v.secrets.linkTls.name }}
    - name: link-tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- if $isDispatcher }}
    {{- with include "stentor.storeTls" $ }}
    - name: store-tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- end }}
    {{- with $c.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  topologySpreadConstraints:
    {{- if $c.topologySpreadConstraints }}
    {{- toYaml $c.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "stentor.selector" $component | nindent 10 }}
      {{- if not $isLmdb }}
      matchLabelKeys: [pod-template-hash]
      {{- end }}
    {{- end }}
    {{- end }}
  {{- with $c.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $c.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $c.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
