//! Every question of every operation is one that AWS would ask.

use super::input::{Extent, NAME, Writer};
use super::{Fault, Reference, has_format, is_key};
use crate::Dispatch;
use crate::ecr::fixture::{Fixture, root};
use isolarium_model::Principal;
use isolarium_policy::Question;
use isolarium_wire::Document;
use isolarium_wire::catalog;
use std::collections::BTreeSet;

const ACCOUNT: &str = "123456789012";

/// Operations that need no permission, with the reason.
const NO_PERMISSION: &[(&str, &str)] = &[
    (
        "sts:GetCallerIdentity",
        "every authenticated caller may know who it is, even against an explicit deny (IAM-53)",
    ),
    (
        "sts:GetSessionToken",
        "policies cannot control authentication; the session has the user's own rights (IAM-53)",
    ),
];

/// Where the product differs from the reference, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "sagemaker:AddTags",
        "resource arn:aws:sagemaker:us-east-1:123456789012:model-package/thing/*",
        "which version of the group it will be is not known yet",
    ),
    (
        "sagemaker:CreateModelPackage",
        "resource arn:aws:sagemaker:us-east-1:123456789012:model-package/thing/*",
        "which version of the group it will be is not known yet",
    ),
    (
        "ecr:ListTagsForResource",
        "no aws:RequestTag/${TagKey}",
        "the request has no tags",
    ),
    ("ecr:ListTagsForResource", "no aws:TagKeys", "the request has no tags"),
    (
        "ec2:CreateTags",
        "no ec2:CreateAction",
        "only present when a creation with tags asks; see ec2/questions/tests.rs",
    ),
    ("cloudwatch:GetMetricData", "no cloudwatch:HasAccessGrant", GRANT),
    ("cloudwatch:ListMetrics", "no cloudwatch:HasAccessGrant", GRANT),
    ("ec2:GetManagedPrefixListEntries", OWN_LIST, AWS_OWN),
    ("ec2:ModifySecurityGroupRules", OWN_LIST, AWS_OWN),
    ("iam:CreateRole", "no iam:RoleTemplateARN", TEMPLATE),
    ("iam:GetRole", "no iam:RoleTemplateARN", TEMPLATE),
    ("iam:TagRole", "no iam:RoleTemplateARN", TEMPLATE),
    ("iam:PutRolePermissionsBoundary", "no iam:RoleTemplateARN", TEMPLATE),
    ("iam:AttachRolePolicy", "no iam:RoleTemplateARN", TEMPLATE),
    ("iam:PutRolePolicy", "no iam:RoleTemplateARN", TEMPLATE),
    (
        "kms:CreateKey",
        "no aws:ResourceTag/${TagKey}",
        "the key is not there yet",
    ),
    (
        "logs:DescribeLogGroups",
        "resource arn:aws:logs:us-east-1:123456789012:log-group::log-stream:",
        "AWS asks about a group without a name, which `*` covers as well",
    ),
    (
        "sagemaker:AddTags",
        "no sagemaker:TaggingAction",
        "only present when a creation with tags asks; see a_creation_with_tags_says_which_one",
    ),
    ("sagemaker:CreateEndpointConfig", "key aws:resourcetag/team", MODEL),
    (
        "sagemaker:CreateEndpointConfig",
        "key sagemaker:resourcetag/team",
        MODEL,
    ),
    ("sagemaker:CreateEndpointConfig", "key sagemaker:volumekmskey", OLD_NAME),
    (
        "sagemaker:CreateEndpointConfig",
        "resource arn:aws:sagemaker:us-east-1:123456789012:model/thing",
        MODEL,
    ),
    (
        "sagemaker:CreateHyperParameterTuningJob",
        "key sagemaker:outputkmskey",
        OLD_NAME,
    ),
    (
        "sagemaker:CreateHyperParameterTuningJob",
        "key sagemaker:volumekmskey",
        OLD_NAME,
    ),
    ("sagemaker:CreateModel", "no sagemaker:DirectGatedModelAccess", HUB),
    ("sagemaker:CreateProcessingJob", "key sagemaker:outputkmskey", OLD_NAME),
    ("sagemaker:CreateProcessingJob", "key sagemaker:volumekmskey", OLD_NAME),
    ("sagemaker:CreateTrainingJob", "key sagemaker:outputkmskey", OLD_NAME),
    ("sagemaker:CreateTrainingJob", "key sagemaker:volumekmskey", OLD_NAME),
    (
        "sagemaker:CreateTrainingJob",
        "no sagemaker:DirectGatedModelAccess",
        HUB,
    ),
    ("sagemaker:PutRecord", "no sagemaker:IsUpdateRecord", UPDATE_RECORD),
    ("sagemaker:PutRecord", "no sagemaker:UpdatableFeatures", UPDATE_RECORD),
    ("sagemaker:CreateTransformJob", "key sagemaker:outputkmskey", OLD_NAME),
    ("sagemaker:CreateTransformJob", "key sagemaker:volumekmskey", OLD_NAME),
    ("sts:AssumeRole", "no accounts.google.com:aud", FEDERATION),
    ("sts:AssumeRole", "no accounts.google.com:sub", FEDERATION),
    ("sts:AssumeRole", "no cognito-identity.amazonaws.com:amr", FEDERATION),
    ("sts:AssumeRole", "no cognito-identity.amazonaws.com:aud", FEDERATION),
    ("sts:AssumeRole", "no cognito-identity.amazonaws.com:sub", FEDERATION),
    ("sts:AssumeRole", "no graph.facebook.com:app_id", FEDERATION),
    ("sts:AssumeRole", "no graph.facebook.com:id", FEDERATION),
    ("sts:AssumeRole", "no saml:namequalifier", FEDERATION),
    ("sts:AssumeRole", "no saml:sub", FEDERATION),
    ("sts:AssumeRole", "no saml:sub_type", FEDERATION),
    ("sts:AssumeRole", "no www.amazon.com:app_id", FEDERATION),
    ("sts:AssumeRole", "no www.amazon.com:user_id", FEDERATION),
];
const GRANT: &str = "there are no data sets and no grants of them";
const OWN_LIST: &str = "owner of arn:aws:ec2:us-east-1:aws:prefix-list/thing";
const AWS_OWN: &str = "S3's prefix list is AWS's own";
const TEMPLATE: &str = "there are no role templates";
const MODEL: &str = "a configuration is also checked on each of its models (IAM-58)";
const OLD_NAME: &str = "the name that the Developer Guide uses beside the one ending in Arn (IAM-16)";
const HUB: &str = "there is no hub of gated models";
const UPDATE_RECORD: &str = "only present when UpdateRecord asks, which is not served";
const FEDERATION: &str = "there is no federated principal";

fn service(name: &str) -> &'static catalog::service::Service {
    catalog::by_name(name).expect("an embedded service").model()
}

/// What members must say so that the input names a resource of the account.
fn texts(service: &str) -> Vec<(&'static str, &'static str)> {
    let own = match service {
        "sagemaker" => "arn:aws:sagemaker:us-east-1:123456789012:model/thing",
        "ecr" => "arn:aws:ecr:us-east-1:123456789012:repository/thing",
        "logs" => "arn:aws:logs:us-east-1:123456789012:log-group:thing",
        _ => "arn:aws:iam::123456789012:user/thing",
    };
    vec![
        ("ResourceArn", own),
        ("resourceArn", own),
        ("RoleArn", "arn:aws:iam::123456789012:role/thing"),
        ("ExecutionRoleArn", "arn:aws:iam::123456789012:role/thing"),
        ("DeliverLogsPermissionArn", "arn:aws:iam::123456789012:role/thing"),
        ("PolicyArn", "arn:aws:iam::123456789012:policy/thing"),
        ("PolicySourceArn", "arn:aws:iam::123456789012:user/thing"),
        ("PermissionsBoundary", "arn:aws:iam::123456789012:policy/thing"),
        ("Path", "/"),
        ("registryId", ACCOUNT),
    ]
}

/// An account with one tagged resource of every kind, all named `thing`.
fn furnished() -> Fixture {
    let fixture = Fixture::new();
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let tags = r#""Tags":[{"Key":"team","Value":"ml"}]"#;
    let allow = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let bounded = r#""PermissionsBoundary":"arn:aws:iam::123456789012:policy/thing""#;
    let role = format!(r#"{{"RoleName":"thing","AssumeRolePolicyDocument":{trust:?},{bounded},{tags}}}"#);
    let image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/thing:1";
    let passed = r#""ExecutionRoleArn":"arn:aws:iam::123456789012:role/thing""#;
    let model = format!(r#"{{"ModelName":"thing","PrimaryContainer":{{"Image":{image:?}}},{passed},{tags}}}"#);
    let variant = r#"{"VariantName":"v","ModelName":"thing","InitialInstanceCount":1,"InstanceType":"ml.m5.large"}"#;
    let config = format!(r#"{{"EndpointConfigName":"thing","ProductionVariants":[{variant}],{tags}}}"#);
    let job = format!(
        r#"{{"TrainingJobName":"thing","AlgorithmSpecification":{{"TrainingImage":{image:?},"TrainingInputMode":"File"}},
            "RoleArn":"arn:aws:iam::123456789012:role/thing","OutputDataConfig":{{"S3OutputPath":"s3://out/jobs"}},
            "ResourceConfig":{{"InstanceType":"ml.m5.large","InstanceCount":1,"VolumeSizeInGB":5}},
            "StoppingCondition":{{"MaxRuntimeInSeconds":600}},{tags}}}"#
    );
    let group = format!(
        r#"{{"FeatureGroupName":"thing","RecordIdentifierFeatureName":"id","EventTimeFeatureName":"at",
            "FeatureDefinitions":[{{"FeatureName":"id","FeatureType":"String"}},{{"FeatureName":"at","FeatureType":"String"}}],
            "OnlineStoreConfig":{{"EnableOnlineStore":true}},{tags}}}"#
    );
    let tuning = format!(
        r#"{{"HyperParameterTuningJobName":"thing","HyperParameterTuningJobConfig":{{"Strategy":"Random",
            "HyperParameterTuningJobObjective":{{"Type":"Minimize","MetricName":"loss"}},
            "ResourceLimits":{{"MaxNumberOfTrainingJobs":1,"MaxParallelTrainingJobs":1}},
            "ParameterRanges":{{"IntegerParameterRanges":[{{"Name":"x","MinValue":"1","MaxValue":"2"}}]}}}},
            "TrainingJobDefinition":{{"AlgorithmSpecification":{{"TrainingImage":{image:?},"TrainingInputMode":"File",
            "MetricDefinitions":[{{"Name":"loss","Regex":"(.)"}}]}},
            "RoleArn":"arn:aws:iam::123456789012:role/thing","OutputDataConfig":{{"S3OutputPath":"s3://out/jobs"}},
            "ResourceConfig":{{"InstanceType":"ml.m5.large","InstanceCount":1,"VolumeSizeInGB":5}},
            "StoppingCondition":{{"MaxRuntimeInSeconds":600}}}},{tags}}}"#
    );
    let processing = format!(
        r#"{{"ProcessingJobName":"thing","AppSpecification":{{"ImageUri":{image:?}}},
            "RoleArn":"arn:aws:iam::123456789012:role/thing",
            "ProcessingResources":{{"ClusterConfig":{{"InstanceType":"ml.m5.large","InstanceCount":1,"VolumeSizeInGB":5}}}},
            {tags}}}"#
    );
    for (service, operation, input) in [
        (
            "iam",
            "CreatePolicy",
            format!(r#"{{"PolicyName":"thing","PolicyDocument":{allow:?},{tags}}}"#),
        ),
        ("iam", "CreateRole", role),
        (
            "iam",
            "CreateUser",
            format!(r#"{{"UserName":"thing",{bounded},{tags}}}"#),
        ),
        (
            "ecr",
            "CreateRepository",
            format!(
                r#"{{"repositoryName":"thing",{}}}"#,
                tags.to_lowercase().replace("key", "Key").replace("value", "Value")
            ),
        ),
        (
            "logs",
            "CreateLogGroup",
            r#"{"logGroupName":"thing","tags":{"team":"ml"}}"#.into(),
        ),
        ("sagemaker", "CreateModel", model),
        ("sagemaker", "CreateEndpointConfig", config),
        (
            "sagemaker",
            "CreateEndpoint",
            format!(r#"{{"EndpointName":"thing","EndpointConfigName":"thing",{tags}}}"#),
        ),
        ("sagemaker", "CreateTrainingJob", job),
        ("sagemaker", "CreateProcessingJob", processing),
        ("sagemaker", "CreateFeatureGroup", group),
        ("sagemaker", "CreateHyperParameterTuningJob", tuning),
    ] {
        let input: Document = serde_json::from_str(&input).expect("JSON");
        let made: Result<Document, _> = fixture.call(service, operation, input);
        made.unwrap_or_else(|error| panic!("{operation}: {error:?}"));
    }
    fixture
}

/// Whether the action makes a resource of that kind, which has no tags yet.
fn makes(action: &str, resource: &str) -> bool {
    let noun = action.split_once(":Create").map(|(_, noun)| noun.to_lowercase());
    let kind = resource.splitn(6, ':').nth(5).unwrap_or_default();
    let kind = kind.split(['/', ':']).next().unwrap_or_default();
    noun.is_some_and(|noun| noun == kind.replace('-', ""))
}

/// Keys of KMS that stand for what this engine does not have: enclaves, calls through other services, keys of several
/// regions, records of use.
fn is_of_no_such_thing(fault: &Fault) -> bool {
    let absent = [
        "no kms:RecipientAttestation:",
        "no kms:ViaService",
        "no kms:MultiRegionKeyType",
        "no kms:TrailingDaysWithoutKeyUsage",
        "no kms:RequestAlias",
    ];
    fault.action.starts_with("kms:") && absent.iter().any(|what| fault.what.starts_with(what))
}

/// A question about the resource named `thing` that lacks the tag it has.
fn without_tag(question: &Question) -> bool {
    let kinds = [
        ":model/",
        ":endpoint-config/",
        ":endpoint/",
        ":training-job/",
        ":processing-job/",
        ":feature-group/",
        ":hyper-parameter-tuning-job/",
        ":role/",
        ":user/",
        ":policy/",
        ":repository/",
        ":log-group:",
    ];
    let named = kinds.iter().any(|kind| {
        let rest = question.resource.split_once(kind).map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest == NAME || rest.starts_with("thing:"))
    });
    named
        && !makes(&question.action, &question.resource)
        && question.context.get("aws:resourcetag/team") != Some(&vec!["ml".to_owned()])
}

/// Proves: IAM-7, IAM-16, IAM-58
#[test]
fn every_question_of_every_operation_is_one_that_aws_asks() {
    let reference = Reference::load();
    let fixture = furnished();
    // A user: operations on oneself are then about a user as well.
    let mut caller = root(ACCOUNT);
    caller.principal = Principal::User {
        account: ACCOUNT.parse().expect("an account"),
        path: "/".into(),
        name: NAME.into(),
        id: "AIDA00000000000000000".into(),
    };
    let ctx = fixture.ctx(&caller);
    let dispatch = Dispatch::default();
    let mut faults = BTreeSet::new();
    let mut free = BTreeSet::new();
    for handler in dispatch.handlers() {
        let prefix = match handler.service {
            "sagemaker-featurestore-runtime" => "sagemaker",
            own => own,
        };
        let own = format!("{prefix}:{}", handler.operation);
        for extent in [Extent::Least, Extent::Full] {
            let writer = Writer {
                service: service(handler.service),
                extent,
                texts: &texts(handler.service),
                always: &["logGroupName"],
                without: &["logGroupIdentifier", "logGroupIdentifiers"],
            };
            let input = writer.input(handler.operation);
            let questions = (handler.questions)(input, &ctx).unwrap_or_else(|error| panic!("{own}: {error:?}"));
            if questions.is_empty() {
                free.insert(own.clone());
                continue;
            }
            faults.extend(questions.iter().flat_map(|question| reference.faults(question)));
            let unowned = questions.iter().filter(|question| {
                let owner = question.context.get("aws:resourceaccount");
                owner != Some(&vec![ACCOUNT.to_owned()])
            });
            faults.extend(unowned.map(|question| Fault::new(&own, &format!("owner of {}", question.resource))));
            let untagged = questions.iter().filter(|question| without_tag(question));
            faults.extend(untagged.map(|question| Fault::new(&own, &format!("tags of {}", question.resource))));
            if !questions.iter().any(|question| question.action == own) {
                faults.insert(Fault::new(&own, "not asked"));
            }
            faults.extend(reference.unasked(&own, &questions));
            if extent == Extent::Full {
                faults.extend(reference.unsupplied(&own, &questions));
            }
        }
    }
    let expected: BTreeSet<String> = NO_PERMISSION.iter().map(|(action, _)| (*action).to_owned()).collect();
    assert_eq!(free, expected, "operations that ask nothing");
    faults.retain(|fault| !is_of_no_such_thing(fault));
    let excepted: BTreeSet<Fault> = EXCEPTIONS
        .iter()
        .map(|(action, what, _)| Fault::new(action, what))
        .collect();
    let unexplained: Vec<&Fault> = faults.difference(&excepted).collect();
    assert!(unexplained.is_empty(), "not as AWS asks: {unexplained:#?}");
    let unused: Vec<&Fault> = excepted.difference(&faults).collect();
    assert!(unused.is_empty(), "exceptions that are none: {unused:#?}");
}

#[test]
fn a_question_that_aws_does_not_ask_is_found() {
    let reference = Reference::load();
    let arn = |text: &str| text.parse().expect("an ARN");
    let model = arn("arn:aws:sagemaker:us-east-1:123456789012:model/m");
    let sound = Question::on("sagemaker:CreateModel", &model).with("sagemaker:NetworkIsolation", "true");
    assert_eq!(reference.faults(&sound), []);
    for (wrong, what) in [
        (Question::on("sagemaker:MakeModel", &model), "unknown action"),
        (Question::any("sagemaker:CreateModel"), "resource *"),
        (
            Question::on("sagemaker:ListModels", &model),
            "resource arn:aws:sagemaker:us-east-1:123456789012:model/m",
        ),
        (
            Question::on("sagemaker:DescribeModel", &arn("arn:aws:iam::123456789012:role/r")),
            "resource arn:aws:iam::123456789012:role/r",
        ),
        (
            sound.clone().with("sagemaker:InstanceTypes", "ml.m5.large"),
            "key sagemaker:instancetypes",
        ),
        (
            Question::on("sagemaker:CreateModel", &model).with("sagemaker:NetworkIsolation", "yes"),
            "type of sagemaker:networkisolation",
        ),
        (
            Question::on("sagemaker:DescribeModel", &model).with("aws:RequestTag/a", "b"),
            "key aws:requesttag/a",
        ),
    ] {
        assert_eq!(reference.faults(&wrong), [Fault::new(&wrong.action, what)]);
    }
    let tags = [Fault::new("sagemaker:DeleteTags", "no aws:TagKeys")];
    assert_eq!(
        reference.unsupplied("sagemaker:DeleteTags", &[Question::on("sagemaker:DeleteTags", &model)]),
        tags
    );
    let half = [Question::on(
        "sagemaker:UpdateEndpoint",
        &arn("arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"),
    )];
    let missing = [Fault::new("sagemaker:UpdateEndpoint", "not about endpoint-config")];
    assert_eq!(reference.unasked("sagemaker:UpdateEndpoint", &half), missing);
}

/// Proves: IAM-16, IAM-58
#[test]
fn a_creation_with_tags_says_which_one() {
    let (fixture, caller) = (Fixture::new(), root(ACCOUNT));
    let dispatch = Dispatch::default();
    let create = dispatch
        .handlers()
        .find(|handler| handler.operation == "CreateModel")
        .expect("served");
    let ask = |tags: &str| {
        let input = format!(r#"{{"ModelName":"m"{tags}}}"#);
        let input: Document = serde_json::from_str(&input).expect("JSON");
        (create.questions)(input, &fixture.ctx(&caller)).expect("decoded")
    };
    let tagged = ask(r#","Tags":[{"Key":"team","Value":"ml"}]"#);
    let tagging = tagged
        .iter()
        .find(|question| question.action == "sagemaker:AddTags")
        .expect("tags are asked about");
    assert_eq!(
        tagging.context.get("sagemaker:taggingaction"),
        Some(&vec!["CreateModel".to_owned()])
    );
    assert_eq!(Reference::load().faults(tagging), []);
    assert!(ask("").iter().all(|question| question.action != "sagemaker:AddTags"));
}

/// Proves: IAM-7, IAM-16, IAM-35
#[test]
fn invocations_and_pulls_are_asked_as_aws_asks_them() {
    let reference = Reference::load();
    let scope = root(ACCOUNT).scope;
    let input: Document =
        serde_json::from_str(r#"{"TargetModel":"m.tar.gz","TargetContainerHostname":"c"}"#).expect("JSON");
    for operation in ["InvokeEndpoint", "InvokeEndpointWithResponseStream"] {
        let own = format!("sagemaker:{operation}");
        let asked = crate::sagemaker::invocation_question(&scope, operation, "e", &Document::Map(Default::default()));
        assert_eq!(reference.faults(&asked), []);
        assert_eq!(reference.unasked(&own, &[asked]), []);
    }
    let asked = crate::sagemaker::invocation_question(&scope, "InvokeEndpoint", "e", &input);
    assert_eq!(
        reference.unsupplied("sagemaker:InvokeEndpoint", std::slice::from_ref(&asked)),
        []
    );
    // The Developer Guide names this key, the reference does not (IAM-16).
    let known = [Fault::new(
        "sagemaker:InvokeEndpoint",
        "key sagemaker:targetcontainerhostname",
    )];
    assert_eq!(reference.faults(&asked), known);
    for question in crate::ecr::resolve::pull_questions("123456789012.dkr.ecr.us-east-1.amazonaws.com/repository:1")
        .expect("an image")
    {
        assert_eq!(reference.faults(&question), []);
        assert_eq!(reference.unasked(&question.action, std::slice::from_ref(&question)), []);
    }
}

#[test]
fn formats_of_arns_and_keys_are_read() {
    let role = "arn:${Partition}:iam::${Account}:role/${RoleNameWithPath}";
    assert!(has_format("arn:aws:iam::123456789012:role/a/b/c", role));
    assert!(!has_format("arn:aws:iam::123456789012:user/a", role));
    assert!(!has_format("arn:aws:iam::12345:role/a", role));
    assert!(is_key("aws:requesttag/team", "aws:RequestTag/${TagKey}"));
    assert!(is_key("aws:principaltag/team", "aws:PrincipalTag/tag-key"));
    assert!(is_key("s3:existingobjecttag/team", "s3:ExistingObjectTag/<key>"));
    assert!(!is_key("aws:sourceip2", "aws:SourceIp"));
}
