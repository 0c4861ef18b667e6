//! Encoded authorization messages: why a request was denied, readable only by who may call DecodeAuthorizationMessage in
//! the account whose request it was.

use super::user_id;
use crate::iam::credentials::MasterKey;
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::time::IdSource;
use isolarium_model::{AccountId, Principal};
use isolarium_policy::explain::{Cited, Outcome};
use isolarium_policy::{Authority, Denial, Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sts as shapes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Value, json};

/// What the key is for: nothing else that the master key seals opens here.
const PURPOSE: &str = "authorization message";

/// What a story is bound to: the account of the denied caller. It names policies, statements and values of keys, which are
/// no business of other accounts. `None` for callers without an account, to whom nothing is told.
fn account(principal: &Principal) -> Option<Aad<&[u8]>> {
    principal
        .account()
        .map(|account| Aad::from(AccountId::as_str(account).as_bytes()))
}

fn key(master: &MasterKey) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, &master.derive(PURPOSE))
        .ok()
        .map(LessSafeKey::new)
}

/// The sealed story of a denial, as EC2 appends it to its refusals. `None` only where sealing fails, and then nothing is
/// told.
pub(crate) fn encoded(
    master: &MasterKey,
    ids: &dyn IdSource,
    authority: &Authority,
    questions: &[Question],
    denial: &Denial,
) -> Option<String> {
    let nonce: [u8; NONCE_LEN] = hex::decode(ids.hex(2 * NONCE_LEN)).ok()?.try_into().ok()?;
    let mut bytes = told(authority, questions, denial).to_string().into_bytes();
    let sealed = Nonce::assume_unique_for_key(nonce);
    key(master)?
        .seal_in_place_append_tag(sealed, account(&authority.principal)?, &mut bytes)
        .ok()?;
    let mut blob = nonce.to_vec();
    blob.append(&mut bytes);
    Some(URL_SAFE_NO_PAD.encode(blob))
}

/// Opens a sealed story for a reader; `None` when this engine did not seal it so for the reader's account.
fn decoded(master: &MasterKey, reader: &Principal, blob: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(blob).ok()?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut sealed = sealed.to_vec();
    let story = key(master)?.open_in_place(nonce, account(reader)?, &mut sealed).ok()?;
    String::from_utf8(story.to_vec()).ok()
}

/// The story in the members that AWS's decoded messages have.
fn told(authority: &Authority, questions: &[Question], denial: &Denial) -> Value {
    let story = &denial.explanation;
    let asked = |question: &&Question| question.action == story.action && question.resource == story.resource;
    let own = questions.iter().find(asked).map(|question| &question.context);
    let keys = own.into_iter().flatten().chain(&*authority.context);
    let conditions: Vec<Value> = keys
        .map(|(key, values)| {
            let values: Vec<Value> = values.iter().map(|value| json!({ "value": value })).collect();
            json!({ "key": key, "values": { "items": values } })
        })
        .collect();
    let statements = |cited: &[Cited], effect: &str| -> Vec<Value> {
        let told = cited.iter().map(|statement| {
            json!({
                "statementId": statement.sid.as_deref().unwrap_or_default(),
                "effect": effect,
                "policyType": statement.policy_type,
                "policy": statement.policy,
                "index": statement.index,
            })
        });
        told.collect()
    };
    let mut matched = statements(&story.denied_by, "DENY");
    matched.extend(statements(&story.allowed_by, "ALLOW"));
    json!({
        "allowed": false,
        "explicitDeny": story.outcome == Outcome::ExplicitDeny,
        "matchedStatements": { "items": matched },
        "failures": { "items": [] },
        "missing": story.missing,
        "context": {
            "principal": { "id": user_id(&authority.principal), "arn": story.principal },
            "action": story.action,
            "resource": story.resource,
            "conditions": { "items": conditions },
        },
    })
}

impl Operation for shapes::DecodeAuthorizationMessageRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "DecodeAuthorizationMessage";
    type Output = shapes::DecodeAuthorizationMessageResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sts:DecodeAuthorizationMessage")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let story = decoded(ctx.master, &ctx.caller.principal, &request.into_inner().encoded_message);
        let refused = || {
            let text = "Message is not a valid authorization message.";
            ApiError::client("InvalidAuthorizationMessageException", text)
        };
        Ok(shapes::DecodeAuthorizationMessageResponse {
            decoded_message: Some(story.ok_or_else(refused)?),
        })
    }
}
