"""Model packages and their groups, through unmodified boto3."""
import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, settled
from tests.harness.wire import refused


def refusal(call, *arguments, **members):
    """The error of a call that must be refused."""
    return refused("ValidationException", call, *arguments, **members).response["Error"]


def inference(image, **members):
    return {
        "Containers": [{"Image": image, "Environment": {"FROM": "package", "BOTH": "package"}}],
        "SupportedContentTypes": ["text/plain"], "SupportedResponseMIMETypes": ["text/plain"],
        "SupportedRealtimeInferenceInstanceTypes": ["ml.t2.medium"], "SupportedTransformInstanceTypes": ["ml.m5.large"],
    } | members


def test_versions_of_a_group_are_numbered_approved_listed_and_deleted(sagemaker, small, role, name):
    """Proves: SM-42, SM-43"""
    group = sagemaker.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="d")["ModelPackageGroupArn"]
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_model_package_group(ModelPackageGroupName=name)
    assert sagemaker.describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupStatus"] == "Completed"
    make = lambda **members: sagemaker.create_model_package(
        ModelPackageGroupName=name, InferenceSpecification=inference(small), **members)["ModelPackageArn"]
    first, second = make(ClientToken="once"), make(ModelApprovalStatus="Approved", CustomerMetadataProperties={"a": "1", "b": "2"})
    assert first.endswith(f"model-package/{name}/1") and second.endswith(f"model-package/{name}/2")
    assert make(ClientToken="once") == first, "the same token makes no other version"
    shown = sagemaker.describe_model_package(ModelPackageName=first)
    assert (shown["ModelPackageGroupName"], shown["ModelPackageVersion"], shown["ModelApprovalStatus"]) == (name, 1, "PendingManualApproval")
    assert shown["InferenceSpecification"] == inference(small) and shown["ModelPackageStatus"] == "Completed"
    page = sagemaker.list_model_packages(ModelPackageGroupName=name, MaxResults=1, SortOrder="Descending")
    assert [one["ModelPackageVersion"] for one in page["ModelPackageSummaryList"]] == [2]
    rest = sagemaker.list_model_packages(ModelPackageGroupName=name, MaxResults=1, SortOrder="Descending", NextToken=page["NextToken"])
    assert [one["ModelPackageVersion"] for one in rest["ModelPackageSummaryList"]] == [1]
    approved = sagemaker.list_model_packages(ModelPackageGroupName=name, ModelApprovalStatus="Approved")["ModelPackageSummaryList"]
    assert [one["ModelPackageArn"] for one in approved] == [second]
    sagemaker.update_model_package(
        ModelPackageArn=second, ModelApprovalStatus="Rejected", ApprovalDescription="no", CustomerMetadataProperties={"c": "3"},
        CustomerMetadataPropertiesToRemove=["a"])
    shown = sagemaker.describe_model_package(ModelPackageName=second)
    assert (shown["ModelApprovalStatus"], shown["ApprovalDescription"]) == ("Rejected", "no")
    assert shown["CustomerMetadataProperties"] == {"b": "2", "c": "3"}
    with pytest.raises(ClientError, match="contains Model Packages"):
        sagemaker.delete_model_package_group(ModelPackageGroupName=name)
    for arn in (first, second):
        sagemaker.delete_model_package(ModelPackageName=arn)
    with pytest.raises(ClientError, match="does not exist"):
        sagemaker.describe_model_package(ModelPackageName=first)
    assert make().endswith("/3"), "numbers are not given twice"
    sagemaker.delete_model_package(ModelPackageName=f"{name}/3")
    sagemaker.delete_model_package_group(ModelPackageGroupName=name)


def test_a_model_of_an_approved_package_serves_on_the_types_it_supports(engine, sagemaker, small, role, name):
    """Proves: SM-44"""
    sagemaker.create_model_package_group(ModelPackageGroupName=name)
    arn = sagemaker.create_model_package(ModelPackageGroupName=name, InferenceSpecification=inference(small))["ModelPackageArn"]
    create = {"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": {"ModelPackageName": arn, "Environment": {"BOTH": "model"}}}
    error = refusal(sagemaker.create_model, **create)
    assert error["Code"] == "ValidationException" and "PendingManualApproval" in error["Message"]
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    both = {"ModelPackageName": arn, "Image": small}
    assert "not both" in refusal(sagemaker.create_model, **create | {"PrimaryContainer": both})["Message"]
    sagemaker.create_model(**create)
    shown = sagemaker.describe_model(ModelName=name)["PrimaryContainer"]
    assert shown["ModelPackageName"] == arn and "Image" not in shown
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.t2.large", "InitialInstanceCount": 1}
    error = refusal(sagemaker.create_endpoint_config, EndpointConfigName=name, ProductionVariants=[variant])
    assert "ml.t2.large" in error["Message"] and arn in error["Message"]
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant | {"InstanceType": "ml.t2.medium"}])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    runtime = engine.client("sagemaker-runtime")
    assert eventually(lambda: runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read()) == b"fixed\n"
    sagemaker.delete_endpoint(EndpointName=name)


def test_a_product_serves_isolated_or_not_at_all(engine, sagemaker, small, role, name):
    """Proves: NI-16, D-13, SM-42, SM-45"""
    arn = sagemaker.create_model_package(ModelPackageName=name, InferenceSpecification=inference(small))["ModelPackageArn"]
    create = {"ExecutionRoleArn": role, "PrimaryContainer": {"ModelPackageName": name}}
    sagemaker.create_model(ModelName=f"{name[:50]}-before", **create)
    engine.run("product", "import", arn, "--product-id", "prod-fixed")
    containers = sagemaker.describe_model_package(ModelPackageName=name)["InferenceSpecification"]["Containers"]
    assert [one["ProductId"] for one in containers] == ["prod-fixed"]
    for member in ({}, {"EnableNetworkIsolation": False}):
        error = refusal(sagemaker.create_model, ModelName=name, **create, **member)
        assert error["Code"] == "ValidationException"
        assert "EnableNetworkIsolation" in error["Message"] and arn in error["Message"] and f"model/{name}" in error["Message"]
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.describe_model(ModelName=name)
    sagemaker.create_model(ModelName=name, EnableNetworkIsolation=True, **create)
    assert sagemaker.describe_model(ModelName=name)["EnableNetworkIsolation"] is True
    listed = sagemaker.list_model_packages(NameContains=name)["ModelPackageSummaryList"]
    assert [one["ModelPackageName"] for one in listed] == [name]


def test_a_package_made_from_a_products_algorithm_is_a_product(engine, sagemaker, small, role, bucket, name):
    """Proves: NI-16, SM-44"""
    training = {
        "TrainingImage": small, "SupportedTrainingInstanceTypes": ["ml.m5.large"],
        "TrainingChannels": [{"Name": "train", "SupportedContentTypes": ["text/csv"], "SupportedInputModes": ["File"]}],
    }
    sagemaker.create_algorithm(AlgorithmName=name, TrainingSpecification=training, InferenceSpecification=inference(small))
    engine.run("product", "import", f"algorithm/{name}", "--product-id", "prod-whole")
    sagemaker.create_model_package(ModelPackageName=name, SourceAlgorithmSpecification={"SourceAlgorithms": [
        {"AlgorithmName": name, "ModelDataUrl": f"s3://{bucket}/absent/model.tar.gz"}]})
    container = sagemaker.describe_model_package(ModelPackageName=name)["InferenceSpecification"]["Containers"][0]
    assert (container["ProductId"], container["ModelDataUrl"]) == ("prod-whole", f"s3://{bucket}/absent/model.tar.gz")
    create = {"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": {"ModelPackageName": name}}
    assert "EnableNetworkIsolation" in refusal(sagemaker.create_model, **create)["Message"]
    # Control: isolated it gets as far as its data, which are not there.
    assert "Could not access model data" in refusal(sagemaker.create_model, **create, EnableNetworkIsolation=True)["Message"]
