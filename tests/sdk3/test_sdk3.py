"""The SageMaker Python SDK of version 3, unmodified, which knows the engine by its environment alone: `./x test-sdk`."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.engine import REGION, Engine, digits_csv, execution_statements  # noqa: E402
from harness.jobs import P6, eventually  # noqa: E402

BUCKET = "sdk-three"
# Without it each call is followed by one to a host of AWS.
DEFAULTS = 'SchemaVersion: "1.0"\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n'
ROOTFS = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium")) / "demo-rootfs"
SAMPLE = ",".join(["0"] * 64)


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"]) as running:
        yield running


@pytest.fixture(scope="module")
def session(engine):
    """The SDK's session in an environment that names nothing but the engine."""
    defaults = engine.directory / "sdk.yaml"
    defaults.write_text(DEFAULTS)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(engine.environment() | {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(defaults)})
    try:
        import boto3
        from sagemaker.core.helper.session_helper import Session

        boto3.DEFAULT_SESSION = None
        made = Session(boto_session=boto3.Session(region_name=REGION), default_bucket=BUCKET)
        # Makes the bucket.
        assert made.default_bucket() == BUCKET
        yield made
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def image(engine):
    return engine.pack_image(ROOTFS, "digits:3")


@pytest.fixture(scope="module")
def role(engine):
    statements = execution_statements(BUCKET) + [{"Effect": "Allow", "Action": P6, "Resource": "*"}]
    return engine.create_role("sdk-three", statements)


@pytest.fixture(scope="module")
def digits(engine, session):
    data = engine.directory / "digits.csv"
    data.write_text("\n".join(digits_csv(ROOTFS)))
    return session.upload_data(str(data), bucket=BUCKET, key_prefix="digits").rsplit("/", 1)[0] + "/"


@pytest.fixture(scope="module")
def network(engine):
    """A VPC with a subnet, the members of a group, and S3."""
    ec2 = engine.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.30.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="sdk", Description="sdk")["GroupId"]
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    table = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[table])
    return {"subnets": [subnet], "security_group_ids": [group]}


def trainer(session, image, role, network=None, **members):
    from sagemaker.core.training.configs import Compute, Networking, OutputDataConfig
    from sagemaker.train.model_trainer import ModelTrainer

    return ModelTrainer(
        sagemaker_session=session, role=role, training_image=image, base_job_name="three",
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        networking=Networking(enable_network_isolation=True, **(network or {})),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{BUCKET}/jobs"), **members,
    )


def train(digits):
    from sagemaker.core.training.configs import InputData

    return [InputData(channel_name="train", data_source=digits)]


@pytest.fixture(scope="module")
def trained(session, image, role, digits, network):
    """A model trained in isolation, its data through a VPC."""
    made = trainer(session, image, role, network, hyperparameters={"trees": 20})
    made.train(input_data_config=train(digits))
    return made._latest_training_job


def test_the_third_sdk_trains_in_isolation_and_in_a_vpc(engine, trained, network):
    """Proves: SM-67, SM-68, NI-4, NI-5, NI-12
    """
    job = engine.client("sagemaker").describe_training_job(TrainingJobName=trained.training_job_name)
    assert job["TrainingJobStatus"] == "Completed" and job["EnableNetworkIsolation"] is True, job
    assert job["VpcConfig"] == {"Subnets": network["subnets"], "SecurityGroupIds": network["security_group_ids"]}
    assert trained.refresh().model_artifacts.s3_model_artifacts.startswith(f"s3://{BUCKET}/jobs/")
    assert engine.internet.arrivals() == []


def test_the_third_sdk_builds_deploys_invokes_and_deletes(engine, session, image, role, trained):
    """Proves: SM-69, SM-70, SM-20, NI-4
    """
    from sagemaker.core.resources import Endpoint, EndpointConfig, Model
    from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
    from sagemaker.core.training.configs import Networking
    from sagemaker.serve.mode.function_pointers import Mode
    from sagemaker.serve.model_builder import ModelBuilder

    artifacts = trained.refresh().model_artifacts.s3_model_artifacts
    builder = ModelBuilder(
        image_uri=image, s3_model_data_url=artifacts, role_arn=role, sagemaker_session=session, instance_type="ml.m5.large",
        mode=Mode.SAGEMAKER_ENDPOINT, network=Networking(enable_network_isolation=True),
    )
    built = builder.build(model_name="three-built")
    # Without waiting: it would look every half minute.
    endpoint = builder.deploy(endpoint_name="three-built", initial_instance_count=1, wait=False)
    endpoint.wait_for_status("InService")
    answer = endpoint.invoke(body=SAMPLE, content_type="text/csv")
    assert answer.body.read().decode().strip().isdigit()
    sagemaker = engine.client("sagemaker")
    assert sagemaker.describe_model(ModelName=built.model_name)["EnableNetworkIsolation"] is True

    container = ContainerDefinition(image=image, model_data_url=artifacts)
    model = Model.create(model_name="three-core", primary_container=container, execution_role_arn=role, enable_network_isolation=True)
    variant = ProductionVariant(
        variant_name="AllTraffic", model_name="three-core", initial_instance_count=1, instance_type="ml.m5.xlarge")
    config = EndpointConfig.create(endpoint_config_name="three-core", production_variants=[variant])
    endpoint.endpoint_config_name = "three-core"
    endpoint.update()
    endpoint.wait_for_status("InService")
    assert endpoint.endpoint_config_name == "three-core"
    answer = endpoint.invoke(body=SAMPLE, content_type="text/csv")
    assert answer.body.read().decode().strip().isdigit() and answer.invoked_production_variant == "AllTraffic"
    assert [one.endpoint_name for one in Endpoint.get_all()] == ["three-built"]
    endpoint.delete()
    endpoint.wait_for_delete()
    for gone in (config, model):
        gone.delete()
    assert engine.internet.arrivals() == []


def test_the_third_sdk_transforms_in_batches(engine, session, image, role, trained, digits):
    """Proves: SM-71, CC-77
    """
    from sagemaker.core.resources import Model
    from sagemaker.core.shapes import ContainerDefinition
    from sagemaker.core.transformer import Transformer

    container = ContainerDefinition(image=image, model_data_url=trained.refresh().model_artifacts.s3_model_artifacts)
    Model.create(model_name="three-batch", primary_container=container, execution_role_arn=role, enable_network_isolation=True)
    transformer = Transformer(
        model_name="three-batch", instance_count=1, instance_type="ml.m5.large", strategy="MultiRecord", assemble_with="Line",
        accept="text/csv", output_path=f"s3://{BUCKET}/transformed", max_payload=1, sagemaker_session=session,
    )
    transformer.transform(
        digits, content_type="text/csv", split_type="Line", input_filter="$[1:]", join_source="Input", output_filter="$[0,-1]")
    output = engine.client("s3").get_object(Bucket=BUCKET, Key="transformed/digits.csv.out")["Body"].read().decode()
    rows = [row.split(",") for row in output.splitlines()]
    assert len(rows) == 1797 and sum(label == guess for label, guess in rows) > 1700
    assert engine.internet.arrivals() == []


def test_the_third_sdk_tunes(engine, session, image, role, digits, network):
    """This version passes on the trainer's VPC and drops its isolation.

    Proves: SM-35, NI-5
    """
    from sagemaker.core.parameter import IntegerParameter
    from sagemaker.train.tuner import HyperparameterTuner

    tuner = HyperparameterTuner(
        trainer(session, image, role, network, hyperparameters={"least_accuracy": 0}), objective_metric_name="accuracy",
        metric_definitions=[{"Name": "accuracy", "Regex": "accuracy=(.*?);"}],
        hyperparameter_ranges={"trees": IntegerParameter(5, 20)}, max_jobs=2, max_parallel_jobs=2,
    )
    tuner.tune(inputs=train(digits))
    job = engine.client("sagemaker").describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=tuner.latest_tuning_job.hyper_parameter_tuning_job_name)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobStatusCounters"]["Completed"] == 2, job
    definition = job["TrainingJobDefinition"]
    assert definition["VpcConfig"] == {"Subnets": network["subnets"], "SecurityGroupIds": network["security_group_ids"]}
    children = engine.client("sagemaker").list_training_jobs(NameContains=job["HyperParameterTuningJobName"])["TrainingJobSummaries"]
    assert len(children) == 2, children
    assert tuner.best_training_job() == job["BestTrainingJob"]["TrainingJobName"]
    assert engine.internet.arrivals() == []


COUNT_ROWS = """
import pathlib, socket
base = pathlib.Path("/opt/ml/processing")
rows = [row for file in sorted((base / "input").glob("*.csv")) for row in file.read_text().splitlines()]
try:
    socket.create_connection(("203.0.113.10", 80), timeout=5)
    way = "open"
except OSError:
    way = "sealed"
(base / "output" / "counted.txt").write_text(f"{len(rows)} rows, {way}")
print("rows:", len(rows), way)
"""


def test_the_third_sdk_runs_a_script_as_a_processing_job(engine, session, image, role, network, capsys):
    """Proves: SM-71, CC-41, NI-12
    """
    from sagemaker.core.network import NetworkConfig
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output

    script = engine.directory / "count.py"
    script.write_text(COUNT_ROWS)
    folder = engine.directory / "rows"
    folder.mkdir()
    (folder / "rows.csv").write_text("1\n2\n3\n")
    rows = session.upload_data(str(folder), bucket=BUCKET, key_prefix="rows")

    def run(arrive, wait, **members):
        processor = ScriptProcessor(
            role=role, image_uri=image, command=["python3"], instance_count=1, instance_type="ml.m5.large",
            sagemaker_session=session, **members)
        given = ProcessingS3Input(s3_uri=rows, s3_data_type="S3Prefix", local_path="/opt/ml/processing/input", s3_input_mode="File")
        made = ProcessingS3Output(s3_uri=f"s3://{BUCKET}/{arrive}", local_path="/opt/ml/processing/output", s3_upload_mode="EndOfJob")
        processor.run(
            code=str(script), inputs=[ProcessingInput(input_name="rows", s3_input=given)],
            outputs=[ProcessingOutput(output_name="out", s3_output=made)], wait=wait)
        if not wait:
            processor.latest_job.wait(poll=1)
        body = engine.client("s3").get_object(Bucket=BUCKET, Key=f"{arrive}/counted.txt")["Body"].read().decode()
        return processor.latest_job, body

    sealed, told = run("sealed", True, network_config=NetworkConfig(enable_network_isolation=True, **network))
    assert told == "3 rows, sealed" and "rows: 3 sealed" in capsys.readouterr().out
    job = engine.client("sagemaker").describe_processing_job(ProcessingJobName=sealed.processing_job_name)
    assert job["NetworkConfig"]["EnableNetworkIsolation"] is True and engine.internet.arrivals() == []
    _, told = run("open", False)
    assert told == "3 rows, open", "control: the page is there"
    eventually(lambda: engine.internet.arrivals(), 10)
