"""Each file that is shipped is valid: by its program where there is one, by its schema, else by what must be in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from celery_showcase_presets import HeavyTask, LightTask
from celery_toolkit_testkit.plugin import missing

# From the repository of the Compose Specification, under the Apache License 2.0.
COMPOSE_SCHEMA = Path(__file__).parent / "schemas/compose-spec.json"
OWN_KINDS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}
GRACE = {"heavy": HeavyTask.time_limit + 60, "light": LightTask.time_limit + 60}


def program(name):
    if shutil.which(name) is None:
        missing(f"{name} is not installed")
    return name


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# compose


def compose(made):
    """The compose file as docker compose would see it: merged, and with the variables of .env."""
    variables = dict(
        line.split("=", 1)
        for line in (made / "compose/.env").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    text = (made / "compose/compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)\}", text))
    assert used <= set(variables)
    filled = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda found: variables[found[1]], text)
    return yaml.safe_load(filled), variables


def test_the_compose_file_is_valid_and_each_process_is_there(made):
    found, variables = compose(made)
    schema = json.loads(COMPOSE_SCHEMA.read_text())
    services = found["services"]
    # Two things are younger than the schema: the name, and a service that is needed only where its profile is on.
    assert found.pop("name") == "celery"
    for service in services.values():
        for needed in service.get("depends_on", {}).values():
            needed.pop("required", None)
    # The schema names its dialect by an address that has since moved.
    jsonschema.Draft201909Validator(schema).validate(found)
    assert set(services) == {"redis", "rabbitmq", "heavy", "light", "beat", "flower", "metrics"}
    for pool, grace in GRACE.items():
        assert services[pool]["stop_grace_period"] == f"{grace}s"
        assert grace > HeavyTask.time_limit if pool == "heavy" else grace > LightTask.time_limit
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))
    assert variables["COMPOSE_PROFILES"] == ("rabbitmq" if variables["CELERY_BROKER_URL"].startswith("amqp") else "")
    assert "noeviction" in services["redis"]["command"][-1]


# systemd


def test_the_units_are_valid(made, tmp_path):
    program("systemd-analyze")
    fake = tmp_path / "celery"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    units = []
    for unit in sorted((made / "systemd").glob("*.service")):
        # The program has to be there to be verified.
        copy = tmp_path / unit.name
        copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={fake}", unit.read_text(), flags=re.MULTILINE))
        units.append(str(copy))
    assert len(units) == 5
    said = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)
    assert not [line for line in said.splitlines() if str(tmp_path) in line], said


@pytest.mark.parametrize("pool", ["heavy", "light"])
def test_a_unit_lets_bodies_end_before_it_kills(made, pool):
    unit = (made / f"systemd/celery-{pool}.service").read_text()
    assert f"TimeoutStopSec={GRACE[pool]}" in unit
    assert "KillMode=mixed" in unit


# Prometheus and Grafana


def test_the_rules_are_valid(made):
    assert "8 rules found" in run(program("promtool"), "check", "rules", str(made / "prometheus/rules.yml"))


def test_the_rules_fire_when_they_should_and_only_then(made, tmp_path):
    """A story of an hour for promtool: a long queue, an old message, failures, nobody online, a new dead letter."""
    series = {
        "celery_broker_up": "1x60",
        'celery_queue_messages{queue="heavy"}': "2000x60",
        'celery_queue_messages{queue="light"}': "3x60",
        'celery_queue_oldest_seconds{queue="heavy"}': "1000x60",
        'celery_queue_oldest_seconds{queue="light"}': "1x60",
        'celery_tasks_total{task="bad",state="failed"}': "0+1x60",
        'celery_tasks_total{task="bad",state="succeeded"}': "0+9x60",
        'celery_tasks_total{task="good",state="failed"}': "0x60",
        'celery_tasks_total{task="good",state="succeeded"}': "0+10x60",
        "celery_workers_online": "0x60",
        "celery_dead_letters": "0x52 1x8",
        'celery_ranch_tasks{state="dead"}': "0x60",
    }
    firing = {
        "CeleryExporterAway": [],
        "CeleryBrokerAway": [],
        "CeleryQueueLong": [{"queue": "heavy", "severity": "warning"}],
        "CeleryMessageOld": [{"queue": "heavy", "severity": "warning"}],
        "CeleryTasksFail": [{"task": "bad", "severity": "warning"}],
        "CeleryNoWorkers": [{"severity": "critical"}],
        "CeleryDeadLetters": [{"severity": "warning"}],
        "CeleryRanchDead": [],
    }
    rules = yaml.safe_load((made / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules] == list(firing)
    bare = [{key: value for key, value in rule.items() if key != "annotations"} for rule in rules]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "celery", "rules": bare}]}))
    story = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "59m", "alertname": name, "exp_alerts": [{"exp_labels": each} for each in expected]}
                    for name, expected in firing.items()
                ],
            }
        ],
    }
    (tmp_path / "story.yml").write_text(yaml.safe_dump(story))
    run(program("promtool"), "test", "rules", str(tmp_path / "story.yml"))


def test_the_dashboard_has_panels_that_do_not_overlap_and_a_data_source_to_choose(made):
    board = json.loads((made / "grafana/dashboard.json").read_text())
    assert {variable["type"] for variable in board["templating"]["list"]} == {"datasource"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 10
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert all(target["expr"] and target["refId"] for target in panel["targets"])
        assert panel["datasource"]["uid"] == "${datasource}"


# Kubernetes


def test_what_kubernetes_knows_is_valid(documents):
    for document in documents():
        if document["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(document, "1.30", strict=True)


def test_each_pool_is_a_deployment_with_the_grace_of_its_time_limit(documents, made):
    pools = yaml.safe_load((made / "helm/values.yaml").read_text())["pools"]
    found = documents()
    workers = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each
        for each in found
        if each["kind"] == "Deployment"
    }
    assert set(workers) == {"io", "cpu", "ram", "custom", "beat", "metrics"}
    for name, pool in pools.items():
        pod = workers[name]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == pool["timeLimit"] + 60
        assert f"shop.apps:{pool['app']}" in pod["containers"][0]["args"]
        assert pool["queues"] in pod["containers"][0]["args"]
        assert "replicas" not in workers[name]["spec"], "KEDA and a number would fight"
    assert workers["beat"]["spec"]["strategy"] == {"type": "Recreate"}
    assert (pools["io"]["timeLimit"], pools["cpu"]["timeLimit"]) == (LightTask.time_limit, HeavyTask.time_limit)


def test_without_keda_the_number_is_fixed_and_without_a_pool_nothing_of_it_is_left(documents):
    found = documents(keda={"enabled": False}, monitoring={"enabled": False}, pools={"ram": {"enabled": False}})
    kinds = {each["kind"] for each in found}
    assert not kinds & OWN_KINDS
    named = {each["metadata"]["name"]: each for each in found}
    assert "rel-ram" not in named
    assert named["rel-cpu"]["spec"]["replicas"] == 1


@pytest.mark.parametrize("by", ["metric", "rabbitmq"])
def test_the_scaler_names_a_deployment_and_reads_its_queue(documents, by):
    found = documents(keda={"by": by})
    deployments = {each["metadata"]["name"] for each in found if each["kind"] == "Deployment"}
    scalers = [each for each in found if each["kind"] == "ScaledObject"]
    assert len(scalers) == 4
    for scaler in scalers:
        spec = scaler["spec"]
        assert set(spec) == {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "triggers"}
        assert spec["scaleTargetRef"]["name"] in deployments
        assert 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        (trigger,) = spec["triggers"]
        # KEDA takes text only.
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        wanted = {"serverAddress", "query", "threshold"} if by == "metric" else {"queueName", "mode", "value"}
        assert set(trigger["metadata"]) == wanted
    secrets = {each["metadata"]["name"]: each["stringData"] for each in found if each["kind"] == "Secret"}
    for each in (each for each in found if each["kind"] == "TriggerAuthentication"):
        (reference,) = each["spec"]["secretTargetRef"]
        assert reference["key"] in secrets[reference["name"]]


def test_the_monitor_finds_the_exporter_and_the_rules_are_those_of_the_file(documents, made):
    found = {each["kind"]: each for each in documents() if each["kind"] != "Deployment"}
    labels = found["Service"]["metadata"]["labels"]
    wanted = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= labels.items()
    ports = {port["name"] for port in found["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in found["ServiceMonitor"]["spec"]["endpoints"]} <= ports
    assert found["PrometheusRule"]["spec"] == yaml.safe_load((made / "prometheus/rules.yml").read_text())
    board = json.loads(found["ConfigMap"]["data"]["celery.json"])
    assert board == json.loads((made / "grafana/dashboard.json").read_text())
