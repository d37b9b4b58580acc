"""The manifests for Kubernetes: the README's command in every pod; pods find each other and start again together."""

import math
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
MANIFESTS = {"tpu": ROOT / "launch/kubernetes_tpu.yaml", "gpu": ROOT / "launch/kubernetes_gpu.yaml"}


def read(kind):
    return yaml.safe_load(MANIFESTS[kind].read_text())


def job_of(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    assert replicated.get("replicas", 1) == 1
    return replicated["template"]["spec"]


def container_of(manifest):
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    return container


def environment_of(manifest):
    return {entry["name"]: entry for entry in container_of(manifest).get("env", ())}


@pytest.fixture(params=MANIFESTS)
def manifest(request):
    return read(request.param)


def test_it_is_a_jobset_whose_pods_run_the_command(manifest, check_command):
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    container = container_of(manifest)
    values = check_command([*container["command"], *container["args"]])
    assert "distributed" in values
    # No folder of the container's own: it is lost with the pod.
    mounted = tuple(mount["mountPath"] + "/" for mount in container.get("volumeMounts", ()))
    for name in ("workdir", "config.data.root", "config.compilation_cache"):
        assert values[name].startswith(("gs://", *mounted)), name


def test_all_pods_start_again_together(manifest):
    job = job_of(manifest)
    assert job["parallelism"] == job["completions"] > 1
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 1
    # What was told to stop does not count as a failure: podFailurePolicy names it, and JobSet's rule reads the name.
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    stopped, disrupted = job["podFailurePolicy"]["rules"]
    assert stopped == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [143]}}
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_there_is_time_to_save(manifest):
    assert job_of(manifest)["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


def test_the_pods_of_a_tpu_slice_are_its_hosts():
    job, container = job_of(read("tpu")), container_of(read("tpu"))
    selector = job["template"]["spec"]["nodeSelector"]
    topology = selector["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    assert chips == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert re.fullmatch(r"tpu-v\w+-(slice|podslice)", selector["cloud.google.com/gke-tpu-accelerator"])
    # GKE says where each pod stands in the slice; a number of ours could contradict it.
    assert not environment_of(read("tpu"))


def test_the_pods_of_gpu_nodes_find_the_first_of_them():
    manifest = read("gpu")
    environment, coordinator = environment_of(manifest), manifest["spec"]["coordinator"]
    assert coordinator["replicatedJob"] == manifest["spec"]["replicatedJobs"][0]["name"]
    assert (coordinator["jobIndex"], coordinator["podIndex"]) == (0, 0)

    def field(name):
        return environment[name]["valueFrom"]["fieldRef"]["fieldPath"]

    assert re.fullmatch(r"\$\(COORDINATOR\):\d+", environment["JAX_COORDINATOR_ADDRESS"]["value"])
    assert field("COORDINATOR") == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    # Kubernetes fills $(COORDINATOR) in where it stands before.
    names = list(environment)
    assert names.index("COORDINATOR") < names.index("JAX_COORDINATOR_ADDRESS")
    assert environment["JAX_NUM_PROCESSES"]["value"] == str(job_of(manifest)["completions"])
    assert field("JAX_PROCESS_ID") == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_gpus_have_shared_memory_and_every_volume_is_there():
    pod, container = job_of(read("gpu"))["template"]["spec"], container_of(read("gpu"))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1


def test_the_image_holds_what_the_command_needs():
    recipe = (ROOT / "launch/Dockerfile").read_text()
    copied = [words for line in re.findall(r"^COPY (.*)$", recipe, re.MULTILINE) for words in line.split()[:-1]]
    assert {"llama2_jax", "experiments", "pyproject.toml", "README.md"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    extras = re.findall(r"EXTRAS=(\w+(?:,\w+)*)", recipe)
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert extras and all(extra in known for group in extras for extra in group.split(","))
