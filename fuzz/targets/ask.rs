//! Asks the engine one question on behalf of a user with one identity policy.

use isolarium_model::Principal;
use isolarium_policy::evaluate::decide;
use isolarium_policy::question::{Authority, Context, Question};
use isolarium_policy::{DocumentKind, NamedPolicy, ResourceSide};

/// Whether a user whose only policy is `text` may do `action` on `resource`.
pub fn allowed(text: &str, action: &str, resource: &str, context: Context) -> bool {
    let principal = Principal::User {
        account: "123456789012".parse().expect("twelve digits"),
        path: "/".into(),
        name: "fuzz".into(),
        id: "AIDAFUZZ".into(),
    };
    let mut authority = Authority::bare(principal, context);
    authority.identity = vec![NamedPolicy::parse("fuzzed", text, DocumentKind::Identity)];
    let question = Question {
        action: action.into(),
        resource: resource.into(),
        context: Context::new(),
    };
    decide(&authority, &question, &ResourceSide::default()).is_ok()
}
