//! What is written can be read again: documents drawn from the models, through each protocol and back.

use super::*;
use crate::catalog::service::ShapeId;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A document of a shape, with constraints ignored: the codecs do not look at them.
fn documents(service: &'static Service, id: ShapeId, depth: u32) -> BoxedStrategy<Document> {
    match &service.shape(id).kind {
        Kind::Structure(structure) => {
            let members: Vec<_> = structure
                .members
                .iter()
                .filter(|member| !service.beside(structure, member) && (depth < 3 || member.required))
                .map(|member| {
                    let value = documents(service, member.shape, depth + 1);
                    proptest::option::weighted(0.7, value)
                        .prop_map(|value| value.map(|value| (member.name.to_owned(), value)))
                })
                .collect();
            members
                .prop_map(|members| Document::Map(members.into_iter().flatten().collect()))
                .boxed()
        }
        Kind::List(list) => proptest::collection::vec(documents(service, list.member, depth + 1), 1..3)
            .prop_map(Document::List)
            .boxed(),
        Kind::Map(map) => {
            let entries = proptest::collection::vec(("[a-z]{1,5}", documents(service, map.value, depth + 1)), 1..3);
            entries
                .prop_map(|entries| Document::Map(entries.into_iter().collect()))
                .boxed()
        }
        Kind::Text(_) => "[a-zA-Z0-9 <&>\"\u{e9}\u{1f600}\n%+.=]{1,9}"
            .prop_map(Document::String)
            .boxed(),
        Kind::Integer(_) => any::<i32>().prop_map(|value| Document::Integer(value.into())).boxed(),
        Kind::Long(_) => any::<i64>().prop_map(Document::Integer).boxed(),
        Kind::Float(_) => (-1.0e9..1.0e9).prop_map(Document::Float).boxed(),
        Kind::Boolean => any::<bool>().prop_map(Document::Bool).boxed(),
        Kind::Blob(_) => proptest::collection::vec(any::<u8>(), 1..9)
            .prop_map(Document::Blob)
            .boxed(),
        Kind::Timestamp => (0..4_000_000_000_000_i64).prop_map(Document::Timestamp).boxed(),
    }
}

fn each_input(
    service: &str,
    operations: &[&str],
    round: impl Fn(&'static Service, &'static Structure, &IndexMap<String, Document>),
) {
    let service = catalog::by_name(service).unwrap().model();
    for name in operations {
        let id = service.operation(name).unwrap().input.unwrap();
        let structure = service.structure(id).unwrap();
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 48,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        runner
            .run(&documents(service, id, 0), |document| {
                let Document::Map(members) = document else {
                    unreachable!("an input is a structure")
                };
                round(service, structure, &members);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn json_reads_what_it_writes() {
    let round = |service, structure, members: &IndexMap<_, _>| {
        let mut body = Vec::new();
        json::write(service, structure, members, &mut body);
        assert_eq!(json::read(service, structure, &body).unwrap(), *members);
    };
    each_input(
        "sagemaker",
        &["CreateTrainingJob", "CreateModel", "CreateEndpointConfig", "ListModels"],
        round,
    );
    each_input("logs", &["PutLogEvents", "FilterLogEvents"], round);
    each_input("ecr", &["UploadLayerPart", "PutImage"], round);
}

#[test]
fn cbor_reads_what_it_writes() {
    each_input(
        "cloudwatch",
        &["PutMetricData", "GetMetricData", "PutMetricAlarm", "DescribeAlarms"],
        |service, structure, members| {
            let mut body = Vec::new();
            cbor::write(service, structure, members, &mut body);
            assert_eq!(cbor::read(service, structure, &body).unwrap(), *members);
        },
    );
}

/// The client's side of the query protocols.
fn form_of(service: &Service, id: ShapeId, value: &Document, at: &str, ec2: bool, out: &mut Vec<String>) {
    let join = |name: &str| {
        if at.is_empty() {
            name.to_owned()
        } else {
            format!("{at}.{name}")
        }
    };
    match (&service.shape(id).kind, value) {
        (Kind::Structure(structure), Document::Map(members)) => {
            for member in structure.members.iter() {
                let Some(value) = members.get(member.name) else {
                    continue;
                };
                let wire = member.wire_name();
                let name = match member.query_name {
                    Some(name) if ec2 => name.to_owned(),
                    _ if ec2 => wire[..1].to_uppercase() + &wire[1..],
                    _ => wire.to_owned(),
                };
                form_of(service, member.shape, value, &join(&name), ec2, out);
            }
        }
        (Kind::List(list), Document::List(items)) => {
            let base = if ec2 || list.flattened {
                at.to_owned()
            } else {
                join(list.member_name.unwrap_or("member"))
            };
            for (number, item) in items.iter().enumerate() {
                form_of(service, list.member, item, &format!("{base}.{}", number + 1), ec2, out);
            }
        }
        (_, Document::Timestamp(millis)) => out.push(format!("{at}={}", timestamp(*millis))),
        (_, Document::Blob(_)) => out.push(format!("{at}={}", escape(&xml::plain(value)))),
        (_, value) => out.push(format!("{at}={}", escape(&xml::plain(value)))),
    }
}

fn timestamp(millis: i64) -> String {
    crate::timestamp::to_iso8601(millis, true)
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Empty structures cannot be told from absent ones in a form.
fn without_empty(document: Document) -> Option<Document> {
    match document {
        Document::Map(members) => {
            let kept: IndexMap<_, _> = members
                .into_iter()
                .filter_map(|(k, v)| Some((k, without_empty(v)?)))
                .collect();
            (!kept.is_empty()).then_some(Document::Map(kept))
        }
        Document::List(items) => {
            let kept: Vec<_> = items.into_iter().filter_map(without_empty).collect();
            (!kept.is_empty()).then_some(Document::List(kept))
        }
        other => Some(other),
    }
}

fn forms(service: &str, operations: &[&str], ec2: bool) {
    let entry = catalog::by_name(service).unwrap().model();
    for name in operations {
        let id = entry.operation(name).unwrap().input.unwrap();
        each_input(service, &[name], |service, structure, members| {
            let mut pairs = Vec::new();
            form_of(service, id, &Document::Map(members.clone()), "", ec2, &mut pairs);
            let form = query::Form::parse([pairs.join("&").as_str()]).unwrap();
            let read = query::read(service, structure, &form, ec2).unwrap();
            assert_eq!(
                without_empty(Document::Map(read)),
                without_empty(Document::Map(members.clone()))
            );
        });
    }
}

#[test]
fn forms_are_read_as_clients_write_them() {
    forms(
        "iam",
        &["CreateRole", "ListRoles", "TagRole", "SimulateCustomPolicy"],
        false,
    );
    forms("sts", &["AssumeRole"], false);
    forms("cloudformation", &["CreateStack"], false);
}

/// The operations of a service that have handlers.
fn served(service: &str) -> Vec<&'static str> {
    let text = include_str!("../../../../../../models/served-operations.toml");
    let (_, rest) = text.split_once(&format!("[{service}]\n")).unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).collect()
}

#[test]
fn ec2_forms_are_read_as_clients_write_them() {
    let operations = served("ec2");
    assert!(operations.len() > 80 && operations.contains(&"CreateVpcEndpoint"));
    forms("ec2", &operations, true);
}
