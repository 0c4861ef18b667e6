"""The SageMaker Python SDK, unmodified, from fit to delete. In an environment of its own: `./x test-sdk`."""
import io
import os
import sys
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest

# The SDK brings a package of the name `tests`, which hides this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.engine import REGION, Engine, digits_csv, execution_statements  # noqa: E402

METRICS = [{"Name": "accuracy", "Regex": "accuracy=(.*?);"}]

SAMPLE = ",".join(["0"] * 64)
# Without it each call is followed by one to a host of AWS.
DEFAULTS = 'SchemaVersion: "1.0"\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n'


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"]) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(engine):
    """The SDK with a session that knows nothing but the engine."""
    defaults = engine.directory / "sdk.yaml"
    defaults.write_text(DEFAULTS)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(engine.environment() | {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(defaults), "SAGEMAKER_SUPPRESS_V2_WARNING": "1"})
    try:
        import boto3
        import sagemaker

        # The default session keeps the credentials of the environment in which another module's tests made it.
        boto3.DEFAULT_SESSION = None
        sagemaker.isolarium_session = sagemaker.Session(boto_session=boto3.Session(region_name=REGION), default_bucket="sdk-data")
        yield sagemaker
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def estimator(engine, sdk):
    """Makes an isolated estimator of the digits image; its data lies in the session's bucket."""
    rootfs = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium")) / "demo-rootfs"
    role = engine.create_role("sdk-execution", execution_statements("sdk-data"))
    image = engine.pack_image(rootfs, "digits:1")
    data = engine.directory / "digits.csv"
    data.write_text("\n".join(digits_csv(rootfs)))
    session = sdk.isolarium_session
    uri = session.upload_data(str(data), key_prefix="digits")
    assert uri == "s3://sdk-data/digits/digits.csv"

    def make(**hyperparameters):
        return sdk.estimator.Estimator(
            image_uri=image, role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session, enable_network_isolation=True,
            output_path="s3://sdk-data/jobs", hyperparameters=hyperparameters, metric_definitions=METRICS,
        )

    return make


def test_the_sdk_fits_deploys_predicts_updates_and_deletes(engine, sdk, estimator, capsys):
    """Proves: SM-67, SM-68, SM-69, SM-70, NI-4
    """
    fitted = estimator(trees="20")
    fitted.fit({"train": "s3://sdk-data/digits/"})
    shown = capsys.readouterr().out
    assert "accuracy=0.9" in shown and "Training seconds:" in shown, shown
    job = fitted.latest_training_job.describe()
    analytics = sdk.analytics.TrainingJobAnalytics(
        job["TrainingJobName"], metric_names=["accuracy"], start_time=job["CreationTime"], end_time=job["TrainingEndTime"] + timedelta(minutes=1))
    values = analytics.dataframe(force_refresh=True)
    assert list(values["metric_name"]) == ["accuracy"] and 0.9 < values["value"][0] <= 1, values
    assert job["EnableNetworkIsolation"] is True and fitted.model_data == job["ModelArtifacts"]["S3ModelArtifacts"]
    predictor = fitted.deploy(
        initial_instance_count=1, instance_type="ml.m5.large", serializer=sdk.serializers.CSVSerializer(), enable_network_isolation=True,
    )
    assert predictor.predict(SAMPLE).strip().isdigit()
    sagemaker = engine.client("sagemaker")
    (model,) = sagemaker.list_models()["Models"]
    assert sagemaker.describe_model(ModelName=model["ModelName"])["EnableNetworkIsolation"] is True
    predictor.update_endpoint(initial_instance_count=1, instance_type="ml.m5.xlarge")
    config = sagemaker.describe_endpoint(EndpointName=predictor.endpoint_name)["EndpointConfigName"]
    assert sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]["InstanceType"] == "ml.m5.xlarge"
    assert predictor.predict(SAMPLE).strip().isdigit()
    predictor.delete_model()
    predictor.delete_endpoint(delete_endpoint_config=True)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=predictor.endpoint_name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert sagemaker.list_models()["Models"] == [] and sagemaker.list_endpoints()["Endpoints"] == []
    assert engine.internet.arrivals() == []


def test_the_sdk_shows_why_a_job_failed(sdk, estimator):
    """Proves: SM-65, SM-68
    """
    with pytest.raises(sdk.exceptions.UnexpectedStatusException) as failed:
        estimator(trees="5", least_accuracy="1.5").fit({"train": "s3://sdk-data/digits/"})
    assert failed.value.actual_status == "Failed"
    assert "AlgorithmError: accuracy 0." in str(failed.value) and "exit code: 1" in str(failed.value)


def test_the_sdk_streams_channels_by_pipe_and_reads_them_as_fast_files(engine, sdk, estimator):
    """Proves: CC-22, CC-24, CC-25
    """
    channel = sdk.inputs.TrainingInput("s3://sdk-data/digits/", input_mode="FastFile")
    fitted = estimator(trees="5")
    fitted.fit({"train": channel})
    assert fitted.latest_training_job.describe()["InputDataConfig"][0]["InputMode"] == "FastFile"
    piped = estimator()
    piped.input_mode = "Pipe"
    program = "open('/opt/ml/model/seen', 'wb').write(open('/opt/ml/input/data/train_0', 'rb').read())"
    piped.container_entry_point = ["/usr/bin/python3", "-c", program]
    piped.fit({"train": "s3://sdk-data/digits/"})
    job = piped.latest_training_job.describe()
    assert job["AlgorithmSpecification"]["TrainingInputMode"] == "Pipe"
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://sdk-data/")
    body = engine.client("s3").get_object(Bucket="sdk-data", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.extractfile("seen").read() == (engine.directory / "digits.csv").read_bytes()


def test_the_sdk_transforms_and_joins_predictions_to_their_rows(engine, sdk, estimator, capsys):
    """Proves: SM-71, CC-77, CC-79, NI-21
    """
    fitted = estimator(trees="20")
    fitted.fit({"train": "s3://sdk-data/digits/"})
    transformer = fitted.transformer(
        instance_count=1, instance_type="ml.m5.large", strategy="MultiRecord", assemble_with="Line", accept="text/csv",
        output_path="s3://sdk-data/transformed", max_payload=1, max_concurrent_transforms=2, enable_network_isolation=True,
    )
    # Labels stay out of what the model sees and come back beside its predictions.
    transformer.transform(
        "s3://sdk-data/digits/", content_type="text/csv", split_type="Line", input_filter="$[1:]", join_source="Input",
        output_filter="$[0,-1]", wait=True, logs=True,
    )
    shown = capsys.readouterr().out
    assert "serving on 8080" in shown and "MaxConcurrentTransforms=2, MaxPayloadInMB=1, BatchStrategy=MULTI_RECORD" in shown, shown
    job = engine.client("sagemaker").describe_transform_job(TransformJobName=transformer.latest_transform_job.name)
    assert job["TransformJobStatus"] == "Completed", job
    output = engine.client("s3").get_object(Bucket="sdk-data", Key="transformed/digits.csv.out")["Body"].read().decode()
    rows = [row.split(",") for row in output.splitlines()]
    assert len(rows) == 1797 and sum(label == guess for label, guess in rows) > 1700
    model = engine.client("sagemaker").describe_model(ModelName=job["ModelName"])
    assert model["EnableNetworkIsolation"] is True and engine.internet.arrivals() == []
def test_the_sdk_tunes_and_deploys_the_best(engine, sdk, estimator):
    """Proves: SM-35, SM-67, NI-4
    """
    tuner = sdk.tuner.HyperparameterTuner(
        estimator(least_accuracy="0"), objective_metric_name="accuracy", objective_type="Maximize",
        metric_definitions=METRICS, hyperparameter_ranges={"trees": sdk.tuner.IntegerParameter(5, 20)}, max_jobs=3, max_parallel_jobs=2,
    )
    tuner.fit({"train": "s3://sdk-data/digits/"})
    job = tuner.describe()
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobDefinition"]["EnableNetworkIsolation"] is True
    assert job["TrainingJobStatusCounters"]["Completed"] == 3
    best = engine.client("sagemaker").describe_training_job(TrainingJobName=tuner.best_training_job())
    assert best["TuningJobArn"] == job["HyperParameterTuningJobArn"] and best["EnableNetworkIsolation"] is True
    assert job["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] > 0.5
    assert tuner.best_estimator().model_data == best["ModelArtifacts"]["S3ModelArtifacts"]
    assert len(tuner.analytics().dataframe()) == 3
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


def test_the_sdk_runs_a_script_as_an_isolated_processing_job(engine, sdk, capsys):
    """Proves: SM-71, CC-41, NI-12
    """
    from sagemaker.network import NetworkConfig
    from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor, ScriptProcessor

    rootfs = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium")) / "demo-rootfs"
    role = engine.create_role("sdk-processing", execution_statements("sdk-data"))
    image = engine.pack_image(rootfs, "processing:1")
    folder = engine.directory / "rows"
    folder.mkdir()
    (folder / "rows.csv").write_text("1\n2\n3\n")
    script = engine.directory / "count.py"
    script.write_text(COUNT_ROWS)
    session, arrived = sdk.isolarium_session, len(engine.internet.arrivals())
    common = {"role": role, "image_uri": image, "instance_count": 1, "instance_type": "ml.m5.large", "sagemaker_session": session}
    data = lambda: [ProcessingInput(source=str(folder), destination="/opt/ml/processing/input")]  # noqa: E731
    results = lambda: [ProcessingOutput(output_name="out", source="/opt/ml/processing/output")]  # noqa: E731
    sealed = ScriptProcessor(command=["python3"], network_config=NetworkConfig(enable_network_isolation=True), **common)
    sealed.run(code=str(script), inputs=data(), outputs=results())
    assert "rows: 3 sealed" in capsys.readouterr().out
    job = sealed.latest_job.describe()
    assert job["ProcessingJobStatus"] == "Completed" and job["NetworkConfig"]["EnableNetworkIsolation"] is True
    assert len(engine.internet.arrivals()) == arrived
    told = sdk.s3.S3Downloader.read_file(f"{sealed.latest_job.outputs[0].destination}/counted.txt", sagemaker_session=session)
    assert told == "3 rows, sealed"
    code = session.upload_data(str(script), key_prefix="processing-code")
    plain = Processor(entrypoint=["python3", "/opt/ml/processing/input/code/count.py"], **common)
    inputs = [*data(), ProcessingInput(source=code, destination="/opt/ml/processing/input/code")]
    plain.run(inputs=inputs, outputs=results())
    assert "rows: 3 open" in capsys.readouterr().out, "control: the page is there"
