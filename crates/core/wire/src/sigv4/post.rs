//! S3 uploads by HTML form: the policy in the form is signed, and the form must satisfy it.

use super::{ALGORITHM, CredentialScope};
use super::{AuthFault, credential_parts, hmac_sha256, parse_stamp, signature_bytes, signing_key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// The fields of a form before its file, names in lower case. `file` is not among them; `bucket` comes from the host or
/// path.
pub type Fields = BTreeMap<String, String>;

/// A form's claim, read but not yet believed.
#[derive(Clone, Debug)]
pub struct PostClaim {
    pub access_key_id: String,
    pub scope: CredentialScope,
    pub token: Option<String>,
    signature: Vec<u8>,
    policy: String,
}

/// What a believed policy still demands of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLength {
    /// Bytes, both ends included.
    pub least: u64,
    pub most: u64,
}

/// Reads the signature fields of a form.
///
/// # Errors
/// [`AuthFault::Missing`] when there is no policy, [`AuthFault::Malformed`] when a field cannot be read.
pub fn parse(fields: &Fields) -> Result<PostClaim, AuthFault> {
    let policy = fields.get("policy").ok_or(AuthFault::Missing)?;
    let required = |name: &str| {
        fields
            .get(name)
            .ok_or_else(|| AuthFault::malformed(format!("the form lacks the field {name}")))
    };
    if required("x-amz-algorithm")? != ALGORITHM {
        return Err(AuthFault::malformed("x-amz-algorithm only supports AWS4-HMAC-SHA256"));
    }
    let stamp = required("x-amz-date")?;
    parse_stamp(stamp)?;
    let (access_key_id, scope) = credential_parts(required("x-amz-credential")?, stamp)?;
    Ok(PostClaim {
        access_key_id,
        scope,
        token: fields.get("x-amz-security-token").cloned(),
        signature: signature_bytes(required("x-amz-signature")?)?,
        policy: policy.clone(),
    })
}

impl PostClaim {
    /// Checks signature, expiration and every condition of the policy. `now` is seconds since the epoch.
    ///
    /// # Errors
    /// The fault; a form that does not satisfy its policy is [`AuthFault::Malformed`] with S3's wording.
    pub fn verify(&self, fields: &Fields, bucket: &str, secret: &str, now: i64) -> Result<FileLength, AuthFault> {
        let key = signing_key(secret, &self.scope);
        let fits: bool = hmac_sha256(&key, self.policy.as_bytes())
            .as_slice()
            .ct_eq(&self.signature)
            .into();
        if !fits {
            return Err(AuthFault::BadSignature);
        }
        let bad = |text: &str| AuthFault::malformed(format!("Invalid Policy: {text}"));
        let json = STANDARD.decode(&self.policy).map_err(|_| bad("not base64"))?;
        let policy: serde_json::Value = serde_json::from_slice(&json).map_err(|_| bad("Invalid JSON."))?;
        let expiration = policy.get("expiration").and_then(serde_json::Value::as_str);
        let expiration = expiration.ok_or_else(|| bad("Policy missing expiration."))?;
        let ends: jiff::Timestamp = expiration.parse().map_err(|_| bad("Invalid 'expiration' value."))?;
        if now > ends.as_second() {
            return Err(AuthFault::UrlExpired);
        }
        let conditions = policy.get("conditions").and_then(serde_json::Value::as_array);
        check(
            conditions.ok_or_else(|| bad("Policy missing conditions."))?,
            fields,
            bucket,
        )
    }
}

/// Fields that need no condition of their own.
fn is_exempt(name: &str) -> bool {
    matches!(name, "policy" | "x-amz-signature" | "file") || name.starts_with("x-ignore-")
}

fn check(conditions: &[serde_json::Value], fields: &Fields, bucket: &str) -> Result<FileLength, AuthFault> {
    let failed = |condition: &serde_json::Value| {
        AuthFault::malformed(format!(
            "Invalid according to Policy: Policy Condition failed: {condition}"
        ))
    };
    let mut length = FileLength {
        least: 0,
        most: u64::MAX,
    };
    let mut covered: Vec<String> = Vec::new();
    let field = |name: &str| match name {
        "bucket" => Some(bucket.to_owned()),
        other => fields.get(other).cloned(),
    };
    for condition in conditions {
        let tests: Vec<(&str, String, String)> = match condition {
            serde_json::Value::Object(pairs) => pairs
                .iter()
                .map(|(name, value)| Some(("eq", name.to_ascii_lowercase(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(|| failed(condition))?,
            serde_json::Value::Array(parts) => match parts.as_slice() {
                [operator, least, most] if operator == "content-length-range" => {
                    let number = |value: &serde_json::Value| {
                        value
                            .as_u64()
                            .or_else(|| value.as_str()?.parse().ok())
                            .ok_or_else(|| failed(condition))
                    };
                    length = FileLength {
                        least: length.least.max(number(least)?),
                        most: length.most.min(number(most)?),
                    };
                    continue;
                }
                [operator, name, value] => {
                    let operator = operator.as_str().ok_or_else(|| failed(condition))?;
                    let name = name.as_str().and_then(|name| name.strip_prefix('$'));
                    let name = name.ok_or_else(|| failed(condition))?.to_ascii_lowercase();
                    let value = value.as_str().ok_or_else(|| failed(condition))?;
                    vec![(operator, name, value.to_owned())]
                }
                _ => return Err(failed(condition)),
            },
            _ => return Err(failed(condition)),
        };
        for (operator, name, value) in tests {
            let given = field(&name);
            let holds = match operator.to_ascii_lowercase().as_str() {
                "eq" => given.as_deref() == Some(value.as_str()),
                "starts-with" => given.unwrap_or_default().starts_with(&value),
                _ => false,
            };
            if !holds {
                return Err(failed(condition));
            }
            covered.push(name);
        }
    }
    match fields.keys().find(|name| !is_exempt(name) && !covered.contains(name)) {
        Some(extra) => Err(AuthFault::malformed(format!(
            "Invalid according to Policy: Extra input fields: {extra}"
        ))),
        None => Ok(length),
    }
}
