use super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal};
use isolarium_wire::{ApiError, Document};

const GROUP: &str = "/aws/sagemaker/TrainingJobs";

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("logs", operation, input)
}

fn group(name: &str) -> CreateLogGroupRequest {
    CreateLogGroupRequest {
        log_group_name: name.into(),
        ..Default::default()
    }
}

fn stream(name: &str) -> CreateLogStreamRequest {
    CreateLogStreamRequest {
        log_group_name: GROUP.into(),
        log_stream_name: name.into(),
    }
}

fn put(fixture: &Fixture, stream: &str, events: &[(i64, &str)]) -> Result<PutLogEventsResponse, ApiError> {
    let log_events = events
        .iter()
        .map(|(timestamp, text)| InputLogEvent {
            timestamp: *timestamp,
            message: (*text).into(),
        })
        .collect();
    let request = PutLogEventsRequest {
        log_group_name: GROUP.into(),
        log_stream_name: stream.into(),
        log_events,
        sequence_token: Some("ignored".into()),
        entity: None,
    };
    call(fixture, "PutLogEvents", request)
}

fn made() -> Fixture {
    let fixture = Fixture::new();
    call::<_, CreateLogGroupOutput>(&fixture, "CreateLogGroup", group(GROUP)).unwrap();
    call::<_, CreateLogStreamOutput>(&fixture, "CreateLogStream", stream("job/algo-1")).unwrap();
    fixture
}

fn get(stream: &str) -> GetLogEventsRequest {
    GetLogEventsRequest {
        log_group_name: Some(GROUP.into()),
        log_stream_name: stream.into(),
        ..Default::default()
    }
}

/// Proves: IAM-66
#[test]
fn missing_and_existing_groups_and_streams_get_the_errors_clients_match() {
    let fixture = made();
    let not_found = "ResourceNotFoundException".to_owned();
    let no_group = (not_found.clone(), "The specified log group does not exist.".to_owned());
    let no_stream = (not_found, "The specified log stream does not exist.".to_owned());
    let exists = "ResourceAlreadyExistsException".to_owned();
    assert_eq!(
        refusal(call::<_, CreateLogGroupOutput>(
            &fixture,
            "CreateLogGroup",
            group(GROUP)
        )),
        (exists.clone(), "The specified log group already exists".into())
    );
    assert_eq!(
        refusal(call::<_, CreateLogStreamOutput>(
            &fixture,
            "CreateLogStream",
            stream("job/algo-1")
        )),
        (exists, "The specified log stream already exists".into())
    );
    assert_eq!(refusal(put(&fixture, "none", &[(START, "x")])), no_stream);
    assert_eq!(
        refusal(call::<_, GetLogEventsResponse>(&fixture, "GetLogEvents", get("none"))),
        no_stream
    );
    let elsewhere = GetLogEventsRequest {
        log_group_name: Some("none".into()),
        ..get("s")
    };
    assert_eq!(
        refusal(call::<_, GetLogEventsResponse>(&fixture, "GetLogEvents", elsewhere)),
        no_group
    );
    let list = DescribeLogStreamsRequest {
        log_group_name: Some("none".into()),
        ..Default::default()
    };
    assert_eq!(
        refusal(call::<_, DescribeLogStreamsResponse>(
            &fixture,
            "DescribeLogStreams",
            list
        )),
        no_group
    );
    let filter = FilterLogEventsRequest {
        log_group_name: Some("none".into()),
        ..Default::default()
    };
    assert_eq!(
        refusal(call::<_, FilterLogEventsResponse>(&fixture, "FilterLogEvents", filter)),
        no_group
    );
    let delete = DeleteLogGroupRequest {
        log_group_name: "none".into(),
    };
    assert_eq!(
        refusal(call::<_, DeleteLogGroupOutput>(&fixture, "DeleteLogGroup", delete)),
        no_group
    );
}

/// Proves: IAM-66, CC-92
#[test]
fn events_come_back_in_order_and_the_same_forward_token_means_the_end() {
    let fixture = made();
    put(
        &fixture,
        "job/algo-1",
        &[(START, "one"), (START, "two"), (START + 5, "three")],
    )
    .unwrap();
    let page = call::<_, GetLogEventsResponse>(
        &fixture,
        "GetLogEvents",
        GetLogEventsRequest {
            limit: Some(2),
            start_from_head: Some(true),
            ..get("job/algo-1")
        },
    )
    .unwrap();
    let texts = |page: &GetLogEventsResponse| -> Vec<String> {
        page.events
            .clone()
            .unwrap()
            .into_iter()
            .map(|event| event.message.unwrap())
            .collect()
    };
    assert_eq!(texts(&page), ["one", "two"]);
    let follow = |token: Option<String>| {
        let request = GetLogEventsRequest {
            next_token: token,
            start_from_head: Some(true),
            ..get("job/algo-1")
        };
        call::<_, GetLogEventsResponse>(&fixture, "GetLogEvents", request).unwrap()
    };
    let rest = follow(page.next_forward_token);
    assert_eq!(texts(&rest), ["three"]);
    assert_eq!(rest.events.as_ref().unwrap()[0].ingestion_time, Some(START));
    let end = follow(rest.next_forward_token.clone());
    assert!(texts(&end).is_empty());
    assert_eq!(end.next_forward_token, rest.next_forward_token);
    let by_arn = GetLogEventsRequest {
        log_group_name: None,
        log_group_identifier: Some(format!("arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}")),
        ..get("job/algo-1")
    };
    assert_eq!(texts(&call(&fixture, "GetLogEvents", by_arn).unwrap()).len(), 3);
    let bad = GetLogEventsRequest {
        next_token: Some("x".into()),
        ..get("job/algo-1")
    };
    let refused = refusal(call::<_, GetLogEventsResponse>(&fixture, "GetLogEvents", bad));
    assert_eq!(
        refused,
        (
            "InvalidParameterException".into(),
            "The specified nextToken is invalid.".into()
        )
    );
}

/// Proves: IAM-66
#[test]
fn batches_beyond_the_limits_are_refused_and_events_out_of_time_are_left_out() {
    let fixture = made();
    let code = |events: &[(i64, &str)]| refusal(put(&fixture, "job/algo-1", events)).0;
    assert_eq!(code(&[(START + 1, "b"), (START, "a")]), "InvalidParameterException");
    assert_eq!(
        code(&[(START - 90_000_000, "a"), (START, "b")]),
        "InvalidParameterException"
    );
    let long = "x".repeat(1_048_576 - 25);
    assert_eq!(code(&[(START, &long)]), "InvalidParameterException");
    assert!(
        put(&fixture, "job/algo-1", &[(START, &long[1..])]).is_ok(),
        "control: one byte less is taken"
    );
    let hour = 3_600_000;
    let old = put(&fixture, "job/algo-1", &[(START - 15 * 24 * hour, "old")]).unwrap();
    assert_eq!(
        old.rejected_log_events_info.unwrap().too_old_log_event_end_index,
        Some(1)
    );
    let new = put(&fixture, "job/algo-1", &[(START, "kept"), (START + 3 * hour, "new")]).unwrap();
    assert_eq!(
        new.rejected_log_events_info.unwrap().too_new_log_event_start_index,
        Some(1)
    );
    let retention = PutRetentionPolicyRequest {
        log_group_name: GROUP.into(),
        retention_in_days: 1,
    };
    call::<_, PutRetentionPolicyOutput>(&fixture, "PutRetentionPolicy", retention.clone()).unwrap();
    let expired = put(
        &fixture,
        "job/algo-1",
        &[(START - 25 * hour, "gone"), (START - 2 * hour, "kept too")],
    )
    .unwrap();
    assert_eq!(
        expired.rejected_log_events_info.unwrap().expired_log_event_end_index,
        Some(1)
    );
    let page: GetLogEventsResponse = call(
        &fixture,
        "GetLogEvents",
        GetLogEventsRequest {
            limit: Some(3),
            ..get("job/algo-1")
        },
    )
    .unwrap();
    let kept: Vec<_> = page
        .events
        .unwrap()
        .into_iter()
        .filter_map(|e| e.message)
        .filter(|m| m.len() < 20)
        .collect();
    assert_eq!(kept, ["kept too", "kept"], "what was rejected is not there");
    let odd = PutRetentionPolicyRequest {
        retention_in_days: 2,
        ..retention
    };
    let refused = refusal(call::<_, PutRetentionPolicyOutput>(&fixture, "PutRetentionPolicy", odd));
    assert_eq!(refused.0, "InvalidParameterException");
}

/// Proves: IAM-66
#[test]
fn stream_listings_give_a_token_only_when_more_exist() {
    let fixture = made();
    for n in 0..5 {
        call::<_, CreateLogStreamOutput>(&fixture, "CreateLogStream", stream(&format!("other/{n}"))).unwrap();
        put(&fixture, &format!("other/{n}"), &[(START + 10 - n, "x")]).unwrap();
    }
    let list = |request: DescribeLogStreamsRequest| {
        let request = DescribeLogStreamsRequest {
            log_group_name: Some(GROUP.into()),
            ..request
        };
        call::<_, DescribeLogStreamsResponse>(&fixture, "DescribeLogStreams", request).unwrap()
    };
    let names = |page: &DescribeLogStreamsResponse| -> Vec<String> {
        page.log_streams
            .clone()
            .unwrap()
            .into_iter()
            .map(|stream| stream.log_stream_name.unwrap())
            .collect()
    };
    let exact = list(DescribeLogStreamsRequest {
        log_stream_name_prefix: Some("job/".into()),
        order_by: Some(OrderBy::LogStreamName),
        limit: Some(1),
        ..Default::default()
    });
    assert_eq!(
        (names(&exact), exact.next_token.clone()),
        (vec!["job/algo-1".into()], None)
    );
    let mut seen = Vec::new();
    let mut next_token = None;
    loop {
        let page = list(DescribeLogStreamsRequest {
            order_by: Some(OrderBy::LastEventTime),
            descending: Some(true),
            limit: Some(2),
            next_token,
            ..Default::default()
        });
        seen.extend(names(&page));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(
        seen,
        ["other/0", "other/1", "other/2", "other/3", "other/4", "job/algo-1"]
    );
    let both = DescribeLogStreamsRequest {
        log_group_name: Some(GROUP.into()),
        log_stream_name_prefix: Some("j".into()),
        order_by: Some(OrderBy::LastEventTime),
        ..Default::default()
    };
    let refused = refusal(call::<_, DescribeLogStreamsResponse>(
        &fixture,
        "DescribeLogStreams",
        both,
    ));
    assert_eq!(refused.1, "Cannot order by LastEventTime with a logStreamNamePrefix.");
}

/// What `aws logs tail --follow` does: filter, follow tokens, ask again from the last event's time.
///
/// Proves: IAM-66
#[test]
fn filtering_follows_a_group_by_tokens_and_start_time() {
    let fixture = made();
    put(
        &fixture,
        "job/algo-1",
        &[(START, "ok 1"), (START + 1, "ERROR 2"), (START + 2, "ok 3")],
    )
    .unwrap();
    let filter = |request: FilterLogEventsRequest| {
        let request = FilterLogEventsRequest {
            log_group_name: Some(GROUP.into()),
            ..request
        };
        call::<_, FilterLogEventsResponse>(&fixture, "FilterLogEvents", request)
    };
    let texts = |page: FilterLogEventsResponse| -> Vec<String> {
        page.events
            .unwrap()
            .into_iter()
            .map(|event| event.message.unwrap())
            .collect()
    };
    let first = filter(FilterLogEventsRequest {
        limit: Some(2),
        ..Default::default()
    })
    .unwrap();
    let next_token = first.next_token.clone();
    assert!(next_token.is_some());
    assert_eq!(first.searched_log_streams, Some(Vec::new()));
    let second = filter(FilterLogEventsRequest {
        limit: Some(2),
        next_token,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(second.next_token, None);
    assert_eq!([texts(first), texts(second)].concat(), ["ok 1", "ERROR 2", "ok 3"]);
    put(&fixture, "job/algo-1", &[(START + 9, "ok 4")]).unwrap();
    let newer = filter(FilterLogEventsRequest {
        start_time: Some(START + 3),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(texts(newer), ["ok 4"]);
    let errors = FilterLogEventsRequest {
        filter_pattern: Some("ERROR".into()),
        ..Default::default()
    };
    assert_eq!(texts(filter(errors).unwrap()), ["ERROR 2"]);
    let bad = FilterLogEventsRequest {
        filter_pattern: Some("\"open".into()),
        ..Default::default()
    };
    assert_eq!(refusal(filter(bad)).0, "InvalidParameterException");
}

/// Proves: IAM-66
#[test]
fn groups_are_described_with_retention_and_tags_by_both_kinds_of_arn() {
    let fixture = made();
    let arn = format!("arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}");
    let tag = TagResourceRequest {
        resource_arn: arn.clone(),
        tags: [("a".to_owned(), "1".to_owned())].into_iter().collect(),
    };
    call::<_, TagResourceOutput>(&fixture, "TagResource", tag).unwrap();
    for resource_arn in [arn.clone(), format!("{arn}:*")] {
        let list = ListTagsForResourceRequest { resource_arn };
        let tags: ListTagsForResourceResponse = call(&fixture, "ListTagsForResource", list).unwrap();
        assert_eq!(tags.tags.unwrap().get("a").map(String::as_str), Some("1"));
    }
    let untag = UntagResourceRequest {
        resource_arn: arn.clone(),
        tag_keys: vec!["a".into()],
    };
    call::<_, UntagResourceOutput>(&fixture, "UntagResource", untag).unwrap();
    let list = ListTagsLogGroupRequest {
        log_group_name: GROUP.into(),
    };
    let tags: ListTagsLogGroupResponse = call(&fixture, "ListTagsLogGroup", list).unwrap();
    assert!(tags.tags.unwrap().is_empty());
    let retention = PutRetentionPolicyRequest {
        log_group_name: GROUP.into(),
        retention_in_days: 30,
    };
    call::<_, PutRetentionPolicyOutput>(&fixture, "PutRetentionPolicy", retention).unwrap();
    call::<_, CreateLogGroupOutput>(&fixture, "CreateLogGroup", group("/aws/zz")).unwrap();
    let describe = |request: DescribeLogGroupsRequest| {
        call::<_, DescribeLogGroupsResponse>(&fixture, "DescribeLogGroups", request).unwrap()
    };
    let first = describe(DescribeLogGroupsRequest {
        log_group_name_prefix: Some("/aws".into()),
        limit: Some(1),
        ..Default::default()
    });
    let found = first.log_groups.unwrap().remove(0);
    assert_eq!(found.arn, Some(format!("{arn}:*")));
    assert_eq!(
        (found.log_group_arn, found.retention_in_days),
        (Some(arn.clone()), Some(30))
    );
    let second = describe(DescribeLogGroupsRequest {
        log_group_name_prefix: Some("/aws".into()),
        next_token: first.next_token,
        ..Default::default()
    });
    assert_eq!(second.log_groups.unwrap()[0].log_group_name.as_deref(), Some("/aws/zz"));
    assert_eq!(second.next_token, None);
    let delete = DeleteRetentionPolicyRequest {
        log_group_name: GROUP.into(),
    };
    call::<_, DeleteRetentionPolicyOutput>(&fixture, "DeleteRetentionPolicy", delete).unwrap();
    let all = describe(DescribeLogGroupsRequest::default());
    assert_eq!(all.log_groups.unwrap()[0].retention_in_days, None);
    let foreign = ListTagsForResourceRequest {
        resource_arn: arn.replace("123456789012", "000000000001"),
    };
    assert_eq!(
        refusal(call::<_, ListTagsForResourceResponse>(
            &fixture,
            "ListTagsForResource",
            foreign
        ))
        .0,
        "ResourceNotFoundException"
    );
}

#[test]
fn what_is_not_done_is_refused_and_not_dropped() {
    let fixture = Fixture::new();
    for request in [
        CreateLogGroupRequest {
            kms_key_id: Some("k".into()),
            ..group("g")
        },
        CreateLogGroupRequest {
            log_group_class: Some(LogGroupClass::InfrequentAccess),
            ..group("g")
        },
        CreateLogGroupRequest {
            deletion_protection_enabled: Some(true),
            ..group("g")
        },
    ] {
        let refused = refusal(call::<_, CreateLogGroupOutput>(&fixture, "CreateLogGroup", request));
        assert_eq!(refused.0, "InvalidParameterException");
    }
    assert!(
        call::<_, CreateLogGroupOutput>(&fixture, "CreateLogGroup", group("g")).is_ok(),
        "control"
    );
}

const DELIVERY: &str = "delivery.logs.amazonaws.com";

fn delivery(name: &str, statement: &str) -> PutResourcePolicyRequest {
    PutResourcePolicyRequest {
        policy_name: Some(name.into()),
        policy_document: Some(format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#)),
        ..Default::default()
    }
}

fn delivers(group: &str) -> String {
    format!(
        r#"{{"Effect":"Allow","Principal":{{"Service":"{DELIVERY}"}},"Action":["logs:CreateLogStream","logs:PutLogEvents"],
        "Resource":"arn:aws:logs:us-east-1:123456789012:log-group:{group}:log-stream:*",
        "Condition":{{"StringEquals":{{"aws:SourceAccount":"123456789012"}}}}}}"#
    )
}

/// Proves: IAM-66
#[test]
fn ten_resource_policies_are_kept_replaced_listed_in_pages_and_deleted() {
    let fixture = Fixture::new();
    let put = |name: &str| {
        call::<_, PutResourcePolicyResponse>(&fixture, "PutResourcePolicy", delivery(name, &delivers("g")))
    };
    for n in 0..10 {
        let kept = put(&format!("p{n}")).unwrap().resource_policy.unwrap();
        assert_eq!(kept.last_updated_time, Some(START));
    }
    let (code, text) = refusal(put("p-eleven"));
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("LimitExceededException", "Resource limit exceeded.")
    );
    put("p3").expect("control: one that is there is replaced");
    let page = |token: Option<String>| {
        let asked = DescribeResourcePoliciesRequest {
            next_token: token,
            limit: Some(6),
            ..Default::default()
        };
        call::<_, DescribeResourcePoliciesResponse>(&fixture, "DescribeResourcePolicies", asked).unwrap()
    };
    let first = page(None);
    let second = page(Some(first.next_token.expect("there are more")));
    assert_eq!(second.next_token, None);
    let names: Vec<String> = [first.resource_policies, second.resource_policies]
        .into_iter()
        .flatten()
        .flatten()
        .map(|policy| {
            assert!(policy.policy_document.unwrap().contains(DELIVERY));
            policy.policy_name.unwrap()
        })
        .collect();
    assert_eq!(names, (0..10).map(|n| format!("p{n}")).collect::<Vec<_>>());
    let delete = |name: &str| {
        let asked = DeleteResourcePolicyRequest {
            policy_name: Some(name.into()),
            ..Default::default()
        };
        call::<_, DeleteResourcePolicyOutput>(&fixture, "DeleteResourcePolicy", asked)
    };
    delete("p0").unwrap();
    let (code, text) = refusal(delete("p0"));
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("ResourceNotFoundException", "Policy with name [p0] does not exist.")
    );
    put("p-eleven").expect("there is room again");
    let nobody = r#"{"Effect":"Allow","Action":"logs:PutLogEvents","Resource":"*"}"#;
    let bad = [
        delivery("no-principal", nobody),
        delivery("", &delivers("g")),
        PutResourcePolicyRequest {
            policy_document: Some("no".into()),
            ..delivery("text", "")
        },
        PutResourcePolicyRequest {
            policy_document: None,
            ..delivery("none", "")
        },
        PutResourcePolicyRequest {
            resource_arn: Some("arn:aws:logs:us-east-1:123456789012:log-group:g".into()),
            ..delivery("of-a-group", &delivers("g"))
        },
    ];
    for asked in bad {
        let refused = call::<_, PutResourcePolicyResponse>(&fixture, "PutResourcePolicy", asked);
        assert_eq!(refusal(refused).0, "InvalidParameterException");
    }
}

/// Proves: IAM-22, IAM-23, IAM-66
#[test]
fn a_resource_policy_lets_the_service_that_it_names_write_and_nobody_else() {
    use isolarium_model::Principal;
    use isolarium_policy::question::Context;
    use isolarium_policy::{Authority, Question, evaluate};
    let fixture = Fixture::new();
    let service = |name: &str| Principal::Service { name: name.into() };
    let may = |principal: Principal, from: &str, action: &str, stream: &str| {
        let context = Context::from([("aws:sourceaccount".to_owned(), vec![from.to_owned()])]);
        let question = Question::on(action, &stream.parse().unwrap());
        let side = crate::iam::resource_side(&fixture.store, &principal, &question).unwrap();
        evaluate::evaluate(&Authority::bare(principal, context), &question, &side).is_allowed()
    };
    let home = "123456789012";
    let stream =
        |account: &str, group: &str| format!("arn:aws:logs:us-east-1:{account}:log-group:{group}:log-stream:s");
    let put = "logs:PutLogEvents";
    assert!(
        !may(service(DELIVERY), home, put, &stream(home, "flows")),
        "nothing is allowed yet"
    );
    let kept: Result<PutResourcePolicyResponse, _> =
        call(&fixture, "PutResourcePolicy", delivery("flows", &delivers("flows")));
    kept.unwrap();
    assert!(may(service(DELIVERY), home, put, &stream(home, "flows")), "control");
    assert!(may(
        service(DELIVERY),
        home,
        "logs:CreateLogStream",
        &stream(home, "flows")
    ));
    for (who, from, action, to) in [
        (service("vpc-flow-logs.amazonaws.com"), home, put, stream(home, "flows")),
        (service(DELIVERY), "210987654321", put, stream(home, "flows")),
        (service(DELIVERY), home, "logs:GetLogEvents", stream(home, "flows")),
        (service(DELIVERY), home, put, stream(home, "others")),
        (service(DELIVERY), home, put, stream("210987654321", "flows")),
    ] {
        assert!(!may(who.clone(), from, action, &to), "{who:?} {from} {action} {to}");
    }
    // Accounts are the business of IAM policies, whatever such a document says.
    let stranger = || Principal::Root {
        account: "210987654321".parse().unwrap(),
    };
    let everybody = r#"{"Effect":"Allow","Principal":{"AWS":"*","Service":"vpc-flow-logs.amazonaws.com"},
        "Action":"logs:*","Resource":"*"}"#;
    let kept: Result<PutResourcePolicyResponse, _> = call(&fixture, "PutResourcePolicy", delivery("all", everybody));
    kept.unwrap();
    assert!(!may(stranger(), home, put, &stream(home, "flows")));
    assert!(
        may(
            service("vpc-flow-logs.amazonaws.com"),
            home,
            put,
            &stream(home, "flows")
        ),
        "control: the document is read"
    );
    let flow_logs = service("vpc-flow-logs.amazonaws.com");
    assert!(
        !may(flow_logs, home, "logs:GetLogEvents", &stream(home, "flows")),
        "services are let write alone"
    );
    let deny = delivers("flows").replace("Allow", "Deny");
    let kept: Result<PutResourcePolicyResponse, _> = call(&fixture, "PutResourcePolicy", delivery("deny", &deny));
    kept.unwrap();
    assert!(
        !may(service(DELIVERY), home, put, &stream(home, "flows")),
        "a Deny of one policy beats the Allow of another"
    );
}
