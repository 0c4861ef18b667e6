use super::shapes;
use crate::Operation;
use crate::ecr::fixture::{Fixture, root};
use isolarium_policy::Question;
use serde_json::{Value, json};

/// The first question of a creation: the one with the condition keys.
fn asked<Op: Operation + serde::de::DeserializeOwned>(input: Value) -> Question {
    let (fixture, caller) = (Fixture::new(), root("123456789012"));
    let request: Op = serde_json::from_value(input).expect("an input");
    let questions = request.questions(&fixture.ctx(&caller));
    questions.into_iter().next().expect("a question")
}

/// The keys of the service, with their values.
fn keys(question: &Question) -> Value {
    let own = question.context.iter().filter(|(key, _)| key.starts_with("sagemaker:"));
    let own = own.map(|(key, values)| (key.trim_start_matches("sagemaker:").to_owned(), json!(values)));
    Value::Object(own.collect())
}

fn job(more: &Value) -> Value {
    let mut input = json!({
        "TrainingJobName": "j", "RoleArn": "arn:aws:iam::123456789012:role/exec",
        "OutputDataConfig": {"S3OutputPath": "s3://out/j"},
    });
    let members = more.as_object().expect("members").clone();
    input.as_object_mut().expect("an object").extend(members);
    input
}

/// Proves: IAM-16, IAM-40
#[test]
fn a_training_job_shows_policies_all_that_it_asks_for_and_nothing_that_it_does_not() {
    let plain = asked::<shapes::CreateTrainingJobRequest>(job(&json!({})));
    assert_eq!(
        keys(&plain),
        json!({"networkisolation": ["false"], "intercontainertrafficencryption": ["false"]})
    );
    let system = json!({
        "FileSystemId": "fs-1", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/data",
    });
    let full = asked::<shapes::CreateTrainingJobRequest>(job(&json!({
        "EnableNetworkIsolation": true, "EnableInterContainerTrafficEncryption": true,
        "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        "ResourceConfig": {
            "VolumeSizeInGB": 1, "VolumeKmsKeyId": "1234", "KeepAlivePeriodInSeconds": 60, "InstanceGroups": [
                {"InstanceType": "ml.m5.large", "InstanceCount": 1, "InstanceGroupName": "a"},
                {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "InstanceGroupName": "b"},
            ],
        },
        "OutputDataConfig": {"S3OutputPath": "s3://out/j", "KmsKeyId": "alias/mine"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "RemoteDebugConfig": {"EnableRemoteDebug": true},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"FileSystemDataSource": system}}],
    })));
    let kms = "arn:aws:kms:us-east-1:123456789012:";
    assert_eq!(
        keys(&full),
        json!({
            "networkisolation": ["true"], "intercontainertrafficencryption": ["true"],
            "vpcsubnets": ["subnet-1", "subnet-2"], "vpcsecuritygroupids": ["sg-1"],
            "instancetypes": ["ml.m5.large", "ml.m5.xlarge"], "keepaliveperiod": ["60"],
            "volumekmskey": [format!("{kms}key/1234")], "volumekmskeyarn": [format!("{kms}key/1234")],
            "outputkmskey": [format!("{kms}alias/mine")], "outputkmskeyarn": [format!("{kms}alias/mine")],
            "maxruntimeinseconds": ["600"], "enableremotedebug": ["true"],
            "filesystemid": ["fs-1"], "filesystemtype": ["EFS"], "filesystemaccessmode": ["ro"],
            "filesystemdirectorypath": ["/data"],
        })
    );
}

/// Proves: IAM-16, IAM-40
#[test]
fn a_model_shows_policies_its_isolation_and_its_vpc() {
    let plain = asked::<shapes::CreateModelInput>(json!({"ModelName": "m"}));
    assert_eq!(keys(&plain), json!({"networkisolation": ["false"]}));
    let full = asked::<shapes::CreateModelInput>(json!({
        "ModelName": "m", "EnableNetworkIsolation": true,
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1", "sg-2"]},
    }));
    assert_eq!(
        keys(&full),
        json!({"networkisolation": ["true"], "vpcsubnets": ["subnet-1"], "vpcsecuritygroupids": ["sg-1", "sg-2"]})
    );
}

/// Proves: IAM-16, IAM-58
#[test]
fn an_endpoint_configuration_shows_policies_what_all_of_its_variants_ask_for() {
    let variant = |more: Value| {
        let mut variant = json!({"VariantName": "v"});
        variant
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("members").clone());
        variant
    };
    let plain = json!({"EndpointConfigName": "c", "ProductionVariants": [variant(json!({}))]});
    assert_eq!(keys(&asked::<shapes::CreateEndpointConfigInput>(plain)), json!({}));
    let key = "arn:aws:kms:us-east-1:123456789012:key/k";
    let full = asked::<shapes::CreateEndpointConfigInput>(json!({
        "EndpointConfigName": "c", "KmsKeyId": key, "EnableNetworkIsolation": true,
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "ProductionVariants": [
            variant(json!({"ModelName": "a", "InstanceType": "ml.m5.large", "AcceleratorType": "ml.eia2.medium"})),
            variant(json!({"ModelName": "b", "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}})),
        ],
        "ShadowProductionVariants": [variant(json!({"ModelName": "c", "InstanceType": "ml.c5.large"}))],
    }));
    let model = |name: &str| format!("arn:aws:sagemaker:us-east-1:123456789012:model/{name}");
    assert_eq!(
        keys(&full),
        json!({
            "networkisolation": ["true"], "vpcsubnets": ["subnet-1"], "vpcsecuritygroupids": ["sg-1"],
            "instancetypes": ["ml.m5.large", "ml.c5.large"], "acceleratortypes": ["ml.eia2.medium"],
            "modelarn": [model("a"), model("b"), model("c")], "volumekmskey": [key], "volumekmskeyarn": [key],
            "serverlessmaxconcurrency": ["5"], "serverlessmemorysize": ["2048"],
        })
    );
}

/// Proves: IAM-16, IAM-40
#[test]
fn a_transform_job_shows_policies_its_model_its_instances_and_its_keys() {
    let request = |output: Value, resources: Value| {
        json!({
            "TransformJobName": "t", "ModelName": "M1",
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}}},
            "TransformOutput": output, "TransformResources": resources,
        })
    };
    let plain = request(
        json!({"S3OutputPath": "s3://b/out"}),
        json!({"InstanceType": "ml.m5.large", "InstanceCount": 1}),
    );
    let model = "arn:aws:sagemaker:us-east-1:123456789012:model/m1";
    assert_eq!(
        keys(&asked::<shapes::CreateTransformJobRequest>(plain)),
        json!({"modelarn": [model], "instancetypes": ["ml.m5.large"]})
    );
    let full = request(
        json!({"S3OutputPath": "s3://b/out", "KmsKeyId": "alias/mine"}),
        json!({"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeKmsKeyId": "1234"}),
    );
    let kms = "arn:aws:kms:us-east-1:123456789012:";
    assert_eq!(
        keys(&asked::<shapes::CreateTransformJobRequest>(full)),
        json!({
            "modelarn": [model], "instancetypes": ["ml.m5.large"],
            "outputkmskey": [format!("{kms}alias/mine")], "outputkmskeyarn": [format!("{kms}alias/mine")],
            "volumekmskey": [format!("{kms}key/1234")], "volumekmskeyarn": [format!("{kms}key/1234")],
        })
    );
}

/// Proves: IAM-17, IAM-16
#[test]
fn a_tuning_job_shows_policies_what_all_of_its_definitions_ask_for() {
    let definition = |isolated: Option<bool>, subnet: &str, group: &str, instance: &str, role: &str| {
        let mut one = json!({
            "AlgorithmSpecification": {"TrainingInputMode": "File"}, "RoleArn": role,
            "OutputDataConfig": {"S3OutputPath": "s3://out/j"}, "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "VpcConfig": {"Subnets": ["subnet-0", subnet], "SecurityGroupIds": [group]},
            "ResourceConfig": {"InstanceType": instance, "InstanceCount": 1, "VolumeSizeInGB": 1},
        });
        if let Some(isolated) = isolated {
            one["EnableNetworkIsolation"] = json!(isolated);
        }
        one
    };
    let roles = [
        "arn:aws:iam::123456789012:role/one",
        "arn:aws:iam::123456789012:role/two",
    ];
    let both = |first: Option<bool>, second: Option<bool>| {
        json!({
            "HyperParameterTuningJobName": "t",
            "HyperParameterTuningJobConfig": {"Strategy": "Random", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
            "TrainingJobDefinitions": [
                definition(first, "subnet-1", "sg-1", "ml.m5.large", roles[0]),
                definition(second, "subnet-2", "sg-2", "ml.c5.large", roles[1]),
            ],
        })
    };
    let whole = asked::<shapes::CreateHyperParameterTuningJobRequest>(both(Some(true), Some(true)));
    assert_eq!(
        keys(&whole),
        json!({
            "networkisolation": ["true"], "intercontainertrafficencryption": ["false"],
            "vpcsubnets": ["subnet-0", "subnet-1", "subnet-2"], "vpcsecuritygroupids": ["sg-1", "sg-2"],
            "instancetypes": ["ml.m5.large", "ml.c5.large"], "maxruntimeinseconds": ["60"],
        })
    );
    for (first, second) in [(Some(true), Some(false)), (None, Some(true)), (None, None)] {
        let whole = asked::<shapes::CreateHyperParameterTuningJobRequest>(both(first, second));
        assert_eq!(
            keys(&whole)["networkisolation"],
            json!(["false"]),
            "{first:?} {second:?}"
        );
    }
    let (fixture, caller) = (Fixture::new(), root("123456789012"));
    let request: shapes::CreateHyperParameterTuningJobRequest =
        serde_json::from_value(both(Some(true), Some(false))).expect("an input");
    let questions = request.questions(&fixture.ctx(&caller));
    let passed: Vec<&str> = questions
        .iter()
        .filter(|question| question.action == "iam:PassRole")
        .map(|question| question.resource.as_str())
        .collect();
    assert_eq!(passed, roles, "every role is passed");
    let isolated: Vec<&Question> = questions
        .iter()
        .filter(|question| question.action == "sagemaker:CreateHyperParameterTuningJob")
        .collect();
    let values: Vec<Value> = isolated
        .iter()
        .map(|one| keys(one)["networkisolation"].clone())
        .collect();
    assert_eq!(
        values,
        [json!(["false"]), json!(["true"]), json!(["false"])],
        "all together, then each"
    );
    let neither = json!({
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobConfig": {"Strategy": "Random", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
    });
    let none = asked::<shapes::CreateHyperParameterTuningJobRequest>(neither);
    assert_eq!(keys(&none)["networkisolation"], json!(["false"]));
}

/// Proves: IAM-16, IAM-40
#[test]
fn a_processing_job_shows_policies_its_isolation_its_vpc_and_its_resources() {
    let input = |more: Value| {
        let mut input = json!({
            "ProcessingJobName": "p", "RoleArn": "arn:aws:iam::123456789012:role/exec",
            "AppSpecification": {"ImageUri": "i"}, "ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}},
        });
        let members = more.as_object().expect("members").clone();
        input.as_object_mut().expect("an object").extend(members);
        input
    };
    let plain = asked::<shapes::CreateProcessingJobRequest>(input(json!({})));
    assert_eq!(
        keys(&plain),
        json!({"networkisolation": ["false"], "intercontainertrafficencryption": ["false"]})
    );
    let key = "arn:aws:kms:us-east-1:123456789012:key/k";
    let full = asked::<shapes::CreateProcessingJobRequest>(input(json!({
        "NetworkConfig": {
            "EnableNetworkIsolation": true, "EnableInterContainerTrafficEncryption": true,
            "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        },
        "ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1, "InstanceType": "ml.m5.large", "VolumeKmsKeyId": key}},
        "ProcessingOutputConfig": {"Outputs": [], "KmsKeyId": key},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    })));
    assert_eq!(
        keys(&full),
        json!({
            "networkisolation": ["true"], "intercontainertrafficencryption": ["true"],
            "vpcsubnets": ["subnet-1", "subnet-2"], "vpcsecuritygroupids": ["sg-1"], "instancetypes": ["ml.m5.large"],
            "volumekmskey": [key], "volumekmskeyarn": [key], "outputkmskey": [key], "outputkmskeyarn": [key],
            "maxruntimeinseconds": ["600"],
        })
    );
}
