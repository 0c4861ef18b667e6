"""Algorithms, and products of the marketplace, through unmodified boto3."""
import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import finished, training_request
from tests.harness.wire import refused

PRINT = {"Name": "accuracy", "Regex": "accuracy=(.*?);"}


def refusal(call, *arguments, **members):
    """The error of a call that must be refused."""
    return refused("ValidationException", call, *arguments, **members).response["Error"]


def specification(image, **members):
    return {
        "TrainingImage": image, "SupportedTrainingInstanceTypes": ["ml.m5.large"], "SupportsDistributedTraining": False,
        "SupportedHyperParameters": [
            {"Name": "trees", "Type": "Integer", "IsTunable": True, "IsRequired": True,
             "Range": {"IntegerParameterRangeSpecification": {"MinValue": "1", "MaxValue": "100"}}},
            {"Name": "criterion", "Type": "Categorical", "DefaultValue": "gini",
             "Range": {"CategoricalParameterRangeSpecification": {"Values": ["gini", "entropy"]}}},
        ],
        "MetricDefinitions": [PRINT],
        "SupportedTuningJobObjectiveMetrics": [{"Type": "Maximize", "MetricName": "accuracy"}],
        "TrainingChannels": [{"Name": "train", "IsRequired": True, "SupportedContentTypes": ["text/csv"], "SupportedInputModes": ["File"]}],
    } | members


def with_algorithm(name, algorithm, role, bucket, uri, isolated=True, **members):
    made = training_request(name, None, role, bucket, uri, isolated, **members)
    made["AlgorithmSpecification"] = {"AlgorithmName": algorithm, "TrainingInputMode": "File"}
    return made


def test_a_job_takes_image_metrics_and_defaults_from_its_algorithm(engine, sagemaker, image, role, bucket, digits, name):
    """Proves: SM-42, SM-43, SM-44"""
    arn = sagemaker.create_algorithm(
        AlgorithmName=name, AlgorithmDescription="digits", TrainingSpecification=specification(image), Tags=[{"Key": "team", "Value": "a"}])["AlgorithmArn"]
    shown = sagemaker.describe_algorithm(AlgorithmName=arn)
    assert shown == shown | sagemaker.describe_algorithm(AlgorithmName=name) | {"ResponseMetadata": shown["ResponseMetadata"]}
    assert shown["AlgorithmStatus"] == "Completed" and "ProductId" not in shown
    assert shown["TrainingSpecification"] == specification(image)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    with pytest.raises(ClientError, match="already existing algorithm"):
        sagemaker.create_algorithm(AlgorithmName=name.upper(), TrainingSpecification=specification(image))
    sagemaker.create_training_job(**with_algorithm(name, arn, role, bucket, digits, HyperParameters={"trees": "20"}))
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert done["HyperParameters"] == {"trees": "20", "criterion": "gini"}
    assert done["AlgorithmSpecification"] == {"AlgorithmName": arn, "TrainingInputMode": "File", "MetricDefinitions": [PRINT]}
    assert done["FinalMetricDataList"][0]["MetricName"] == "accuracy"
    assert name in [one["AlgorithmName"] for one in sagemaker.list_algorithms(NameContains=name)["AlgorithmSummaryList"]]
    sagemaker.delete_algorithm(AlgorithmName=name)
    with pytest.raises(ClientError, match="Could not find algorithm"):
        sagemaker.describe_algorithm(AlgorithmName=name)


def test_what_an_algorithm_does_not_support_is_refusal(sagemaker, image, role, bucket, digits, name):
    """Proves: SM-44"""
    sagemaker.create_algorithm(AlgorithmName=name, TrainingSpecification=specification(image))

    def create(edit, **members):
        made = with_algorithm(name, name, role, bucket, digits, **members)
        edit(made)
        sagemaker.create_training_job(**made)

    for word, edit in [
        ('"depth" is not supported', lambda made: made["HyperParameters"].update(depth="1")),
        ('value "101"', lambda made: made["HyperParameters"].update(trees="101")),
        ('"trees" is required', lambda made: made.pop("HyperParameters")),
        ("instance type ml.m5.xlarge", lambda made: made["ResourceConfig"].update(InstanceType="ml.m5.xlarge")),
        ("InstanceCount must be 1", lambda made: made["ResourceConfig"].update(InstanceCount=2)),
        ('ContentType "image/png"', lambda made: made["InputDataConfig"][0].update(ContentType="image/png")),
        ("input mode", lambda made: made["InputDataConfig"][0].update(InputMode="Pipe")),
        ("not both", lambda made: made["AlgorithmSpecification"].update(TrainingImage=image)),
        ("Could not find algorithm", lambda made: made["AlgorithmSpecification"].update(AlgorithmName="nobody")),
    ]:
        error = refusal(create, edit)
        assert error["Code"] == "ValidationException" and word in error["Message"], (word, error)
    with pytest.raises(ClientError, match="ValidationSpecification is not supported"):
        sagemaker.create_algorithm(
            AlgorithmName=f"{name[:50]}-2", TrainingSpecification=specification(image),
            ValidationSpecification={"ValidationRole": role, "ValidationProfiles": [{"ProfileName": "p", "TrainingJobDefinition": {
                "TrainingInputMode": "File", "InputDataConfig": with_algorithm(name, name, role, bucket, digits)["InputDataConfig"],
                "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/v"}, "StoppingCondition": {"MaxRuntimeInSeconds": 60},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}}}]})
    create(lambda made: None)
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Completed", "control: what it supports it runs"


def test_a_product_of_the_marketplace_trains_isolated_or_not_at_all(engine, sagemaker, image, role, bucket, digits, name):
    """Proves: NI-15, D-13, SM-42, SM-45"""
    arn = sagemaker.create_algorithm(AlgorithmName=name, TrainingSpecification=specification(image))["AlgorithmArn"]
    control = f"{name[:50]}-before"
    sagemaker.create_training_job(**with_algorithm(control, name, role, bucket, digits, isolated=False))
    assert finished(sagemaker, control)["TrainingJobStatus"] == "Completed", "control: it is no product yet"
    assert engine.run("product", "import", f"algorithm/{name}", "--product-id", "prod-digits").stdout.strip() == arn
    assert sagemaker.describe_algorithm(AlgorithmName=name)["ProductId"] == "prod-digits"
    for isolated in (False, None):
        made = with_algorithm(name, arn, role, bucket, digits, isolated=isolated)
        if isolated is None:
            made.pop("EnableNetworkIsolation")
        error = refusal(sagemaker.create_training_job, **made)
        assert error["Code"] == "ValidationException"
        assert "EnableNetworkIsolation" in error["Message"] and arn in error["Message"] and f"training-job/{name}" in error["Message"]
    definition = {
        "AlgorithmSpecification": {"AlgorithmName": arn, "TrainingInputMode": "File"}, "RoleArn": role,
        "InputDataConfig": made["InputDataConfig"], "OutputDataConfig": made["OutputDataConfig"],
        "ResourceConfig": made["ResourceConfig"], "StoppingCondition": made["StoppingCondition"],
    }
    tuning = {
        "HyperParameterTuningJobName": name[-32:].strip("-"),
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random", "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"IntegerParameterRanges": [{"Name": "trees", "MinValue": "5", "MaxValue": "9"}]},
        },
    }
    error = refusal(sagemaker.create_hyper_parameter_tuning_job, **tuning, TrainingJobDefinition=definition)
    assert "EnableNetworkIsolation" in error["Message"] and arn in error["Message"]
    sagemaker.create_hyper_parameter_tuning_job(**tuning, TrainingJobDefinition=definition | {"EnableNetworkIsolation": True})
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"])
    sagemaker.create_training_job(**with_algorithm(name, arn, role, bucket, digits))
    done = finished(sagemaker, name)
    assert (done["TrainingJobStatus"], done["EnableNetworkIsolation"]) == ("Completed", True), done.get("FailureReason")


def test_a_managed_image_that_needs_s3_refuses_isolation_as_an_algorithm_too(sagemaker, role, bucket, digits, name):
    """Proves: NI-20, D-6"""
    managed = "763104351884.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1"
    sagemaker.create_algorithm(AlgorithmName=name, TrainingSpecification=specification(managed))
    error = refusal(sagemaker.create_training_job, **with_algorithm(name, name, role, bucket, digits))
    assert "EnableNetworkIsolation cannot be true" in error["Message"], error
    # Control: without isolation it gets as far as its image, which is not here.
    error = refusal(sagemaker.create_training_job, **with_algorithm(name, name, role, bucket, digits, isolated=False))
    assert "EnableNetworkIsolation" not in error["Message"] and "sagemaker-scikit-learn" in error["Message"], error


def test_each_family_refuses_isolation_for_jobs_tuning_jobs_and_models_and_customers_images_do_not(
    engine, sagemaker, small_root, role, bucket, digits, name
):
    """Proves: NI-20, D-6"""
    families = {
        "Chainer": "sagemaker-chainer", "PyTorch": "pytorch-training", "scikit-learn": "sagemaker-scikit-learn",
        "Reinforcement learning": "sagemaker-rl-ray-container",
    }
    short = name[-20:].strip("-")

    def creations(one, image, isolated):
        job = training_request(one, image, role, bucket, digits, isolated)
        parts = ("AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition", "EnableNetworkIsolation")
        tuning = {
            "HyperParameterTuningJobName": one,
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random", "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
                "ParameterRanges": {"IntegerParameterRanges": [{"Name": "trees", "MinValue": "5", "MaxValue": "9"}]},
            },
            "TrainingJobDefinition": {part: job[part] for part in parts},
        }
        model = {"ModelName": one, "ExecutionRoleArn": role, "PrimaryContainer": {"Image": image}, "EnableNetworkIsolation": isolated}
        return (sagemaker.create_training_job, job), (sagemaker.create_hyper_parameter_tuning_job, tuning), (sagemaker.create_model, model)

    for number, (family, repository) in enumerate(families.items()):
        one, managed = f"{short}-{number}", f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{repository}:1"
        for create, members in creations(one, managed, True):
            error = refusal(create, **members)
            assert family in error["Message"] and "EnableNetworkIsolation" in error["Message"], error
        for create, members in creations(one, managed, False):
            error = refusal(create, **members)
            assert "EnableNetworkIsolation" not in error["Message"] and repository in error["Message"], "control: it gets as far as its image"
        for create, members in creations(one, engine.pack_image(small_root, f"{repository}:1"), True):
            create(**members)
        sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=one)
    for number in range(len(families)):
        done = finished(sagemaker, f"{short}-{number}")
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
