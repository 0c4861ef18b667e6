"""How updates take over under constant load: in steps, and in place where there is no room for two fleets, with the default way
as the control."""
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, gone, settled  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.recovery.test_updates import NAME, SETTINGS, Load  # noqa: E402

# An instance has two vCPUs, a fleet two instances.
FLEET = 4


@pytest.fixture(params=[("blue-green", None), ("in-place-when-full", FLEET)], ids=["default", "in-place"])
def engine(request):
    updates, vcpus = request.param
    settings = SETTINGS | {"endpoints.updates": updates} | ({"capacity.vcpus": vcpus} if vcpus else {})
    with Engine(os.environ["ISOLARIUM_BINARY"], settings, internet=False) as running:
        running.in_place = updates != "blue-green"
        yield running
        if request.session.testsfailed:
            print(f"\nthe end of the engine's log:\n{running.tail(60)}")


def made(engine, folder):
    """Configurations `one` and `two`, whose variants have their names, `missing`, whose model data is not there, and `broken`,
    which does not start; the endpoint serves `one`."""
    sagemaker, s3 = engine.client("sagemaker"), engine.client("s3")
    s3.create_bucket(Bucket="takeover")
    s3.put_object(Bucket="takeover", Key="none.tar.gz", Body=b"soon gone")
    role = engine.create_role("takeover", execution_statements("takeover"))
    root = small_rootfs(folder)
    good = engine.pack_image(root, "small:1")
    bad = engine.pack_image(root, "small:broken", "--entrypoint", "/usr/bin/no-such-program")
    for name, image, data in (("one", good, {}), ("two", good, {}), ("broken", bad, {}),
                              ("missing", good, {"ModelDataUrl": "s3://takeover/none.tar.gz"})):
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image} | data)
        variant = {"VariantName": name, "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 2}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    s3.delete_object(Bucket="takeover", Key="none.tar.gz")
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="one")
    assert settled(sagemaker, NAME)["EndpointStatus"] == "InService"
    return sagemaker


def test_an_update_in_place_costs_a_gap_of_503_and_the_default_costs_nothing(engine, tmp_path):
    """Proves: AU-26, AU-27, AU-28, AU-29, D-22
    """
    sagemaker = made(engine, tmp_path)
    seen = set()

    def update(config):
        sagemaker.update_endpoint(EndpointName=NAME, EndpointConfigName=config)
        deadline = time.monotonic() + 120
        while True:
            endpoint = sagemaker.describe_endpoint(EndpointName=NAME)
            seen.add(endpoint["EndpointStatus"])
            if endpoint["EndpointStatus"] == "InService":
                return endpoint
            assert time.monotonic() < deadline, endpoint
            time.sleep(0.02)

    with Load(engine) as load:
        load.more(50)
        # What cannot even be fetched takes nothing down, whatever the way.
        endpoint = update("missing")
        assert endpoint["EndpointConfigName"] == "one" and "model data" in endpoint["FailureReason"], endpoint
        load.more(50)
        assert (load.cut, load.wrong) == ([], [])
        endpoint = update("two")
        assert endpoint["EndpointConfigName"] == "two" and "FailureReason" not in endpoint, endpoint
        load.more(50)
        updated = len(load.wrong)
        endpoint = update("broken")
        assert endpoint["EndpointConfigName"] == "two" and "could not be started" in endpoint["FailureReason"], endpoint
        load.more(50)
    assert "Updating" in seen and seen <= {"Updating", "RollingBack", "InService"}, seen
    assert load.cut == [], "connections stay"
    assert {status for status, _ in load.wrong} <= {503}, load.wrong[:3]
    assert all(b"ServiceUnavailable" in body or b"available" in body for _, body in load.wrong), load.wrong[:3]
    if engine.in_place:
        assert 0 < updated < len(load.wrong), "a gap for the update, and one for the roll back"
    else:
        assert load.wrong == [], "control: two fleets stand beside each other"
    print(f"\n{load.total()} answers, {len(load.wrong)} times 503 in {load.seconds:.0f} s")
    sagemaker.delete_endpoint(EndpointName=NAME)
    gone(sagemaker, NAME)


@pytest.mark.parametrize("engine", [("blue-green", None)], ids=["default"], indirect=True)
def test_traffic_moves_in_steps_and_in_batches_without_a_lost_request(engine, tmp_path):
    """Proves: SM-24, SM-25, AU-26, AU-27
    """
    sagemaker = made(engine, tmp_path)

    def pending():
        return sagemaker.describe_endpoint(EndpointName=NAME).get("PendingDeploymentSummary")

    def status():
        shown = pending()
        return shown["ProductionVariants"][0]["VariantStatus"][0] if shown else {}

    with Load(engine) as load:
        load.more(20)
        canary = {"Type": "CANARY", "WaitIntervalInSeconds": 6, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}}
        policy = {"TrafficRoutingConfiguration": canary, "TerminationWaitInSeconds": 1}
        sagemaker.update_endpoint(
            EndpointName=NAME, EndpointConfigName="two", DeploymentConfig={"BlueGreenUpdatePolicy": policy})
        eventually(lambda: status().get("Status") == "Baking", 60)
        assert pending()["EndpointConfigName"] == "two"
        eventually(lambda: load.by_variant["two"] > 0, 60)
        shown = settled(sagemaker, NAME)
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "two"), shown
        assert shown["LastDeploymentConfig"]["BlueGreenUpdatePolicy"] == policy
        # Half of the traffic for a while means more for the old fleet than what came before.
        before = load.by_variant["one"]
        load.more(50)
        assert load.by_variant["one"] == before, "the old fleet gets nothing any more"
        rolling = {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 2}
        sagemaker.update_endpoint(
            EndpointName=NAME, EndpointConfigName="one", DeploymentConfig={"RollingUpdatePolicy": rolling})
        eventually(lambda: status().get("StatusMessage", "").startswith("50%"), 60, pause=0.05)
        summary = pending()
        assert summary is None or summary["ProductionVariants"][0]["CurrentInstanceCount"] <= 2
        shown = settled(sagemaker, NAME)
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "one"), shown
        load.more(50)
    assert (load.cut, load.wrong) == ([], []), "steps cost requests"
    sagemaker.delete_endpoint(EndpointName=NAME)
    gone(sagemaker, NAME)
