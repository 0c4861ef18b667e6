//! What authorization is asked about an invocation of an endpoint (IAM-16, IAM-35).

use isolarium_model::Scope;
use isolarium_model::sagemaker::Endpoint;
use isolarium_policy::Question;
use isolarium_wire::Document;

/// The members of a request that say what it aims at within the endpoint; condition keys of the same name.
const AIMS: [&str; 2] = ["TargetModel", "TargetContainerHostname"];

/// The question of `InvokeEndpoint` or `InvokeEndpointWithResponseStream`, as `operation` names it, with this input.
pub fn invocation_question(scope: &Scope, operation: &str, endpoint_name: &str, input: &Document) -> Question {
    let arn = Endpoint::arn(scope, endpoint_name);
    let question = Question::on(&["sagemaker:", operation].concat(), &arn);
    let Document::Map(members) = input else { return question };
    AIMS.iter().fold(question, |question, name| {
        match isolarium_wire::document::member(members, name) {
            Some(Document::String(given)) => question.with(&format!("sagemaker:{name}"), given.as_str()),
            _ => question,
        }
    })
}
