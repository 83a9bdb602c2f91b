"""The files for TensorFlow Serving: each is parsed, and values in several files agree."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from caption_gan.exporting.allowed_operations import NEWEST_ENGINE
from caption_gan.exporting.versions import WARM_UP_BATCHES
from serving import client
from serving.config_files import read_batching_parameters, read_model_config, read_monitoring_config
from serving.flags import parse_flags

FLEET = Path(client.__file__).parent / "fleet"
MANIFESTS = {
    path.stem: yaml.safe_load(path.read_text()) for path in FLEET.glob("kubernetes/*.yaml")
}
POD = MANIFESTS["deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
KUSTOMIZATION = yaml.safe_load((FLEET / "kustomization.yaml").read_text())
(ADAPTER_RULE,) = yaml.safe_load((FLEET / "prometheus_adapter.yaml").read_text())["rules"]["custom"]
DOCKERFILE = (FLEET / "Dockerfile").read_text()
README = (FLEET / "README.md").read_text()
(MODEL,) = read_model_config(FLEET / "models.config").model_config_list.config
BATCHING = read_batching_parameters(FLEET / "batching.config")
PROMETHEUS = read_monitoring_config(FLEET / "monitoring.config").prometheus_config
FLAGS = dict(flag.removeprefix("--").split("=", 1) for flag in CONTAINER["args"])


def in_dockerfile(instruction: str) -> str:
    """The arguments of an instruction, which must occur once."""
    joined = DOCKERFILE.replace("\\\n", " ")
    (found,) = re.findall(rf"^{instruction} (.*)$", joined, re.MULTILINE)
    return found


def test_the_model_has_the_name_that_clients_use(monkeypatch):
    monkeypatch.setattr("sys.argv", ["client", "image.png"])
    assert MODEL.name == client._parse().model
    assert MODEL.model_platform == "tensorflow"
    assert MODEL.model_version_policy.WhichOneof("policy_choice") == "latest"
    for probe in ("startupProbe", "readinessProbe"):
        path = CONTAINER[probe]["httpGet"]["path"]
        assert path == f"/v1/models/{MODEL.name}/metadata"
    assert f'model_name="{MODEL.name}"' in ADAPTER_RULE["metricsQuery"]


def test_batch_sizes_match_the_client_and_the_warm_up():
    sizes = list(BATCHING.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == BATCHING.max_batch_size.value >= client.BATCH
    assert set(WARM_UP_BATCHES) <= set(sizes)
    max_padding = max((larger - size - 1) / larger for size, larger in pairwise(sizes))
    assert max_padding == 7 / 24
    assert not BATCHING.pad_variable_length_inputs
    assert BATCHING.num_batch_threads.value == int(CONTAINER["resources"]["requests"]["cpu"])
    assert BATCHING.max_enqueued_batches.value >= BATCHING.num_batch_threads.value
    assert 0 < BATCHING.batch_timeout_micros.value < 10_000


def test_prometheus_finds_the_metrics():
    assert PROMETHEUS.enable
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == PROMETHEUS.path
    assert annotations["prometheus.io/port"] == str(PORTS["rest"])
    assert annotations["prometheus.io/scrape"] == "true"


def test_the_embedded_server_accepts_the_flags():
    arguments = parse_flags(CONTAINER["args"])
    assert (arguments.port, arguments.rest_api_port) == (PORTS["grpc"], PORTS["rest"])
    assert FLAGS.keys() <= vars(arguments).keys()  # TensorFlow Serving accepts no abbreviations.
    assert arguments.enable_batching is True
    assert arguments.enable_grpc_healthcheck_service is True
    assert str(arguments.model_config_file) == FLAGS["model_config_file"]


def test_image_and_deployment_run_the_same_command():
    assert json.loads(in_dockerfile("CMD")) == CONTAINER["args"]
    assert json.loads(in_dockerfile("ENTRYPOINT")) == CONTAINER["command"]
    assert in_dockerfile("FROM") == CONTAINER["image"]
    (command,) = re.findall(r"^docker run.*?(?=^```)", README, re.MULTILINE | re.DOTALL)
    assert re.findall(r"--[a-z_]+=\S+", command) == CONTAINER["args"]
    assert f" {CONTAINER['image']} " in command
    # By default, an export checks its operations for this release.
    assert re.fullmatch(rf"tensorflow/serving:2\.{NEWEST_ENGINE}\.\d+", CONTAINER["image"])
    assert int(in_dockerfile("USER")) == POD["spec"]["securityContext"]["runAsUser"] > 0
    assert list(map(int, in_dockerfile("EXPOSE").split())) == list(PORTS.values())


def test_ports_agree():
    assert {"grpc": int(FLAGS["port"]), "rest": int(FLAGS["rest_api_port"])} == PORTS
    assert client.GRPC_ADDRESS.endswith(f":{PORTS['grpc']}")
    assert client.REST_ADDRESS.endswith(f":{PORTS['rest']}")
    served = {port["name"]: port for port in MANIFESTS["service"]["spec"]["ports"]}
    assert {name: port["port"] for name, port in served.items()} == PORTS
    assert all(port["targetPort"] == name for name, port in served.items())
    for probe in ("startupProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == "rest"
    assert CONTAINER["livenessProbe"]["grpc"]["port"] == PORTS["grpc"]
    assert FLAGS["enable_grpc_healthcheck_service"] == "true"


def test_mounts_volumes_and_config_files_match():
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    claim = MANIFESTS["models"]["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    files = {f"{mounts['config']}/{name}" for name in generated["files"]}
    assert {path for name, path in FLAGS.items() if name.endswith("_file")} == files
    assert MODEL.base_path == f"{mounts['models']}/{MODEL.name}"


def test_the_image_contains_the_files_of_the_flags():
    assert f"COPY ${{MODELS}}/{MODEL.name} {MODEL.base_path}\n" in DOCKERFILE
    (pattern,) = re.findall(r"^COPY serving/fleet/(\S+) /config/$", DOCKERFILE, re.MULTILINE)
    copied = {f"/config/{path.name}" for path in FLEET.glob(pattern)}
    assert {path for name, path in FLAGS.items() if name.endswith("_file")} <= copied


def test_selectors_match_the_pods():
    labels = POD["metadata"]["labels"]
    constraints = POD["spec"]["topologySpreadConstraints"]
    for selector in (
        MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["service"]["spec"]["selector"],
        MANIFESTS["disruption_budget"]["spec"]["selector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in constraints),
    ):
        assert selector.items() <= labels.items()
        assert selector


def test_the_autoscaler_scales_the_deployment_by_the_metric_of_the_adapter():
    scaler, deployment = MANIFESTS["autoscaler"]["spec"], MANIFESTS["deployment"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]  # Each `apply` would undo the autoscaler.
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == ADAPTER_RULE["name"]["as"]
    assert ":tensorflow:serving:request_latency_sum" in ADAPTER_RULE["seriesQuery"]
    assert int(metric["pods"]["target"]["averageValue"]) < BATCHING.max_batch_size.value
    disrupted = MANIFESTS["disruption_budget"]["spec"]["maxUnavailable"]
    assert disrupted < scaler["minReplicas"] < scaler["maxReplicas"]


def test_a_pod_terminates_after_its_requests():
    ((program, seconds),) = [CONTAINER["lifecycle"]["preStop"]["exec"]["command"]]
    assert program == "sleep"
    assert int(FLAGS["rest_api_timeout_in_ms"]) / 1000 < int(seconds)
    assert int(seconds) < POD["spec"]["terminationGracePeriodSeconds"]


def test_kustomization_lists_all_manifests():
    applied = {FLEET / path for path in KUSTOMIZATION["resources"]}
    assert applied == set(FLEET.glob("kubernetes/*.yaml"))


def test_kustomize_builds_all_manifests():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", FLEET], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    assert built.keys() == {"ConfigMap"} | {manifest["kind"] for manifest in MANIFESTS.values()}
    volumes = built["Deployment"]["spec"]["template"]["spec"]["volumes"]
    names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert names == [built["ConfigMap"]["metadata"]["name"]]
    for name, content in built["ConfigMap"]["data"].items():
        assert content == (FLEET / name).read_text()


def test_the_readme_names_all_files():
    for path in FLEET.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.relative_to(FLEET)}`" in README, path
