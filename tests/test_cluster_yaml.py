"""The files for Ray's cluster launcher against Ray's own validation and an imitation of EC2."""

from __future__ import annotations

import os
import re

import pytest
import yaml

util = pytest.importorskip("ray.autoscaler._private.util")

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ["cluster.yaml", "deploy/cluster-gcp.yaml"]


def load(name):
    with open(os.path.join(PROJECT, name), encoding="utf-8") as file:
        return yaml.safe_load(file)


def node_types(config):
    """The head's and the one worker's node type."""
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    (worker,) = types.values()
    return head, worker


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name):
    util.validate_config(util.prepare_config(load(name)))


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_a_misspelt_key_so_the_validation_is_not_idle(name):
    import jsonschema

    config = dict(load(name), max_worker=8)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        util.validate_config(util.prepare_config(config))


@pytest.mark.parametrize("name", FILES)
def test_workers_scale_from_zero_and_say_beforehand_that_they_have_one_gpu(name):
    config = load(name)
    _, worker = node_types(util.prepare_config(config))
    assert (worker["min_workers"], worker["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert worker["resources"] == {"CPU": 4, "GPU": 1}


@pytest.mark.parametrize("name", FILES)
def test_the_head_runs_no_actor_and_has_no_gpu(name):
    head, _ = node_types(load(name))
    assert head["resources"] == {"CPU": 0}
    assert "guestAccelerators" not in head["node_config"]
    assert head["node_config"].get("InstanceType", "m5.xlarge") == "m5.xlarge"


def test_workers_are_t4_spot_instances_and_the_head_is_neither():
    head, worker = node_types(load("cluster.yaml"))
    assert worker["node_config"]["InstanceType"] == "g4dn.xlarge"
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]

    head, worker = node_types(load("deploy/cluster-gcp.yaml"))
    t4 = {"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}
    assert [t4] == worker["node_config"]["guestAccelerators"]
    assert worker["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert worker["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    assert "scheduling" not in head["node_config"]


@pytest.mark.parametrize("name", FILES)
def test_no_port_is_opened_and_the_dashboard_listens_on_loopback(name):
    config = load(name)
    assert "0.0.0.0" not in yaml.safe_dump(config)
    assert "IpPermissions" not in config["provider"].get("security_group", {})
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("name", FILES)
def test_every_node_installs_the_locked_requirements_into_python_3_7(name):
    config = load(name)
    for local in config["file_mounts"].values():
        assert os.path.isfile(os.path.join(PROJECT, local)), local
    commands = util.prepare_config(config)
    lock = "/opt/batchinfer/requirements.lock"
    assert config["file_mounts"][lock] == "requirements/py37.lock"
    for part in ("head_setup_commands", "worker_setup_commands"):
        assert any(f"--require-hashes -r {lock}" in command for command in commands[part]), part
        assert any("python3.7 -m venv" in command for command in commands[part]), part


@pytest.mark.parametrize("name", FILES)
def test_the_image_is_built_before_the_container_starts_with_what_ray_copies_by(name):
    config = load(name)
    _, worker = node_types(config)
    image = config["docker"]["image"]
    assert config["docker"]["pull_before_run"] is False  # nothing to pull: the node builds it
    for commands in (
        config["initialization_commands"],
        worker.get("initialization_commands", config["initialization_commands"]),
    ):
        (build,) = [command for command in commands if "docker build" in command]
        assert f"--tag {image} -" in build
        assert "FROM tensorflow/tensorflow:1.15.5-gpu" in build
        assert re.search(r"apt-get install .*\bpython3.7-venv rsync'", build)


def test_the_heads_boto3_is_made_for_the_locked_botocore():
    """boto3 1.x.y is released with botocore 1.(x+3).y and asks for it."""
    (command,) = load("cluster.yaml")["head_setup_commands"]
    minor, patch = map(int, re.search(r"boto3==1\.(\d+)\.(\d+)", command).groups())
    with open(os.path.join(PROJECT, "requirements", "py37.lock"), encoding="utf-8") as file:
        locked = re.search(r"^botocore==1\.(\d+)\.(\d+)", file.read(), re.MULTILINE)
    assert (minor + 3, patch) == tuple(map(int, locked.groups()))


@pytest.fixture
def ec2(monkeypatch, tmp_path):
    """An AWS account of this process's own, with the two instance profiles of deploy/README.md."""
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    if not hasattr(moto, "mock_ec2"):
        pytest.skip("Ray 2.7.2 runs with the boto3 that moto 4 imitates")
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws import utils as aws_utils

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key pair to ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "imitation")
    (tmp_path / ".ssh").mkdir()
    caches = [aws_utils.resource_cache, aws_utils.client_cache, aws_config._get_subnets_or_die]
    for cache in caches:
        cache.cache_clear()
    with moto.mock_ec2(), moto.mock_iam():
        iam = boto3.client("iam", region_name="us-west-2")
        for name in ("batchinfer-head", "batchinfer-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield boto3.resource("ec2", region_name="us-west-2")


@pytest.mark.filterwarnings("ignore")  # moto's own, about Python 3.7 and unknown image ids
def test_ec2_takes_the_nodes_and_the_world_reaches_only_ssh(ec2):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = AWSNodeProvider.bootstrap_config(util.prepare_config(load("cluster.yaml")))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    head, worker = node_types(config)
    for kind, node_type in (("head", head), ("worker", worker)):
        provider.create_node(dict(node_type["node_config"]), {"kind": kind}, 1)

    instances = {
        tag["Value"]: instance
        for instance in ec2.instances.all()
        for tag in instance.tags
        if tag["Key"] == "kind"
    }
    assert instances["worker"].instance_type == "g4dn.xlarge"
    assert instances["worker"].instance_lifecycle == "spot"
    assert instances["worker"].iam_instance_profile["Arn"].endswith("/batchinfer-worker")
    assert instances["head"].instance_type == "m5.xlarge"
    assert instances["head"].instance_lifecycle is None

    (group,) = {group["GroupId"] for node in instances.values() for group in node.security_groups}
    rules = ec2.SecurityGroup(group).ip_permissions
    open_to_all = [(r["FromPort"], r["ToPort"]) for r in rules if r["IpRanges"]]
    assert open_to_all == [(22, 22)]


def test_the_readmes_score_yaml_is_made_of_flags_that_exist(monkeypatch, tmp_path):
    from batchinfer.options import ClusterOptions, FaultOptions
    from jobs import score

    with open(os.path.join(PROJECT, "deploy", "README.md"), encoding="utf-8") as file:
        block = re.search(r"^    # score\.yaml\n(    .*\n)+", file.read(), re.MULTILINE).group()
    path = tmp_path / "score.yaml"
    path.write_text(block)
    monkeypatch.setattr("sys.argv", ["score.py", "--config", str(path)])
    flags = score.read()
    assert (flags.device, flags.actors, flags.num_gpus) == ("gpu", 8, None)
    assert flags.start_timeout_s > FaultOptions().start_timeout_s
    assert ClusterOptions(device=flags.device, actors=flags.actors).actors == 8
