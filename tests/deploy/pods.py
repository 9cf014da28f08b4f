"""Pods of rendered manifests, run as Containers: what the chart says is tried,
not only read."""
import os

import yaml

import containers
import harness


class Pods:
    """`secrets` is {name: {key: text}}, as an admin would have made them."""

    def __init__(self, network, root, manifests, secrets=None):
        self.network, self.root = network, root
        self.docs = [d for d in yaml.safe_load_all(manifests) if d]
        self.secrets = secrets or {}
        self.specs = {}

    def find(self, kind, name):
        return next(d for d in self.docs if d["kind"] == kind
                    and d["metadata"]["name"] == name)

    def start(self, kind, name, index=0):
        """A pod of a workload (or a Pod itself), its Container."""
        doc = self.find(kind, name)
        pod = doc if kind == "Pod" else doc["spec"]["template"]
        return self._container(f"{name}-{index}", pod["spec"], kind)

    def _container(self, name, spec, kind):
        container = spec["containers"][0]
        user = spec["securityContext"]["runAsUser"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        mounts = {m["mountPath"]: self._volume(name, m["name"], volumes)
                  for m in container.get("volumeMounts", [])}
        made = containers.Container(
            self.network, name, self.root,
            container["command"] + container.get("args", []),
            mounts=mounts, uid=user)
        made.env = {e["name"]: self._value(e, made)
                    for e in container.get("env", [])}
        self.specs[made.name] = spec
        return made

    def _value(self, env, container):
        if "value" in env:
            return env["value"]
        source = env["valueFrom"]
        if "secretKeyRef" in source:
            ref = source["secretKeyRef"]
            return self.secrets[ref["name"]][ref["key"]]
        return {"metadata.name": container.name,
                "status.podIP": container.address}[
                    source["fieldRef"]["fieldPath"]]

    def _volume(self, pod, name, volumes):
        """A directory with what the volume would hold; without a source it is
        the claim of a StatefulSet, which keeps what it has."""
        path = self.network.dir / "volumes" / pod / name
        path.mkdir(parents=True, exist_ok=True)
        volume = volumes.get(name)
        if volume is None:
            os.chown(path, containers.UID, containers.UID)
            return path
        if "configMap" in volume:
            files = self.find("ConfigMap", volume["configMap"]["name"])["data"]
        else:
            files = self.secrets[volume["secret"]["secretName"]]
        for key, text in files.items():
            (path / key).write_text(text)
        return path

    def port(self, container, name):
        ports = self.specs[container.name]["containers"][0]["ports"]
        return next(p["containerPort"] for p in ports if p["name"] == name)

    def probe(self, container, which):
        """One httpGet probe: does it succeed?"""
        get = self.specs[container.name]["containers"][0][which]["httpGet"]
        answer = container.get(self.port(container, get["port"]), get["path"])
        return answer is not None and 200 <= answer[0] < 400

    def wait_ready(self, *pods):
        for pod in pods:
            spec = self.specs[pod.name]["containers"][0]["startupProbe"]
            harness.wait_until(
                lambda: self.probe(pod, "startupProbe"),
                spec["periodSeconds"] * spec["failureThreshold"],
                f"{pod.name} has started")
            assert self.probe(pod, "livenessProbe")
        for pod in pods:
            harness.wait_until(lambda: self.probe(pod, "readinessProbe"), 30,
                               f"{pod.name} is ready")

    def stop(self, pod):
        """As a kubelet does after preStop: SIGTERM, and the grace left."""
        spec = self.specs[pod.name]
        sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]
        return pod.stop(spec["terminationGracePeriodSeconds"]
                        - sleep["seconds"])
