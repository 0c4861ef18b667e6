//! Encrypt, Decrypt, GenerateDataKey and GenerateDataKeyWithoutPlaintext.

use super::{ask, crypto, find, is_own, shapes, usable};
use crate::iam::credentials::MasterKey;
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use isolarium_model::Arn;
use isolarium_model::kms::KmsKey;
use isolarium_model::time::IdSource;
use isolarium_policy::{Granted, Question};
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

/// What materials are sealed for.
const WRAPPING: &str = "kms key material";
/// First byte of a ciphertext: its form.
const FORM: u8 = 1;
/// Bytes of an encryption context at most.
const LARGEST_CONTEXT: usize = 8192;

pub(super) type Context = Option<IndexMap<String, String>>;

/// Makes sealed material for a new key.
pub(super) fn new_material(master: &MasterKey, ids: &dyn IdSource, arn: &Arn) -> Result<String, ApiError> {
    let bytes = crypto::random(ids, 32).map_err(ApiError::internal)?;
    let wrapping = master.derive(WRAPPING);
    let sealed = crypto::seal(&wrapping, ids, arn.as_str().as_bytes(), &bytes).map_err(ApiError::internal)?;
    Ok(STANDARD.encode(sealed))
}

/// The material of a key. One that cannot be opened, such as under another `master.key`, is the engine's fault.
fn material(ctx: &Ctx<'_>, key: &KmsKey) -> Result<Vec<u8>, ApiError> {
    unsealed(ctx.master, key)
}

fn unsealed(master: &MasterKey, key: &KmsKey) -> Result<Vec<u8>, ApiError> {
    let sealed = STANDARD.decode(&key.material).map_err(ApiError::internal)?;
    let wrapping = master.derive(WRAPPING);
    crypto::open(&wrapping, key.arn.as_str().as_bytes(), &sealed).map_err(ApiError::internal)
}

/// How many keys a store holds, and how many of them a master key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals {
    pub keys: usize,
    pub opened: usize,
}

/// Tries a master key on every key of a store: for the start, before anything is sealed under a wrong one.
///
/// # Errors
/// When the records cannot be read.
pub fn seals(store: &dyn StateStore, master: &MasterKey) -> Result<Seals, StoreError> {
    let keys = store.all::<KmsKey>()?;
    let opened = keys.iter().filter(|key| unsealed(master, &key.record).is_ok());
    Ok(Seals {
        opened: opened.count(),
        keys: keys.len(),
    })
}

/// Adds what a request says about its encryption.
pub(super) fn asked(question: Question, algorithm: &str, context: &Context) -> Question {
    let question = question.with("kms:EncryptionAlgorithm", algorithm);
    context.iter().flatten().fold(question, |question, (key, value)| {
        question
            .with(&format!("kms:EncryptionContext:{key}"), value.clone())
            .with("kms:EncryptionContextKeys", key.clone())
    })
}

/// What is bound to a ciphertext: the key, and the context in an order of its own.
fn bound(arn: &Arn, context: &Context) -> Result<Vec<u8>, ApiError> {
    let sorted: BTreeMap<&String, &String> = context.iter().flatten().collect();
    let text = serde_json::to_vec(&(arn.as_str(), sorted)).map_err(ApiError::internal)?;
    if text.len() > LARGEST_CONTEXT {
        return Err(ApiError::validation(format!(
            "1 validation error detected: Value at 'encryptionContext' failed to satisfy constraint: Member must have \
             length less than or equal to {LARGEST_CONTEXT}"
        )));
    }
    Ok(text)
}

fn sealed(ctx: &Ctx<'_>, key: &KmsKey, context: &Context, plain: &[u8]) -> Result<Vec<u8>, ApiError> {
    sealed_under(ctx.master, ctx.ids, key, context, plain)
}

/// A ciphertext under a key.
pub(super) fn sealed_under(
    master: &MasterKey,
    ids: &dyn IdSource,
    key: &KmsKey,
    context: &Context,
    plain: &[u8],
) -> Result<Vec<u8>, ApiError> {
    let context = bound(&key.arn, context)?;
    let text = crypto::seal(&unsealed(master, key)?, ids, &context, plain).map_err(ApiError::internal)?;
    let arn = key.arn.as_str().as_bytes();
    let length = u16::try_from(arn.len()).map_err(ApiError::internal)?;
    Ok([&[FORM], length.to_be_bytes().as_slice(), arn, &text].concat())
}

/// The key that a ciphertext names, and what is sealed.
fn parted(blob: &[u8]) -> Option<(&str, &[u8])> {
    let rest = blob.strip_prefix(&[FORM])?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (arn, text) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(arn).ok()?, text))
}

/// What a ciphertext under this key holds; `None` when it is none, or the context is another.
pub(super) fn opened_under(
    master: &MasterKey,
    key: &KmsKey,
    context: &Context,
    blob: &[u8],
) -> Result<Option<Vec<u8>>, ApiError> {
    let Some((_, text)) = parted(blob).filter(|(arn, _)| *arn == key.arn.as_str()) else {
        return Ok(None);
    };
    let context = bound(&key.arn, context)?;
    Ok(crypto::open(&unsealed(master, key)?, &context, text).ok())
}

/// Whether what a request names is this key. The question was about the ciphertext's key alone, so another account's key is
/// compared by name and not looked up.
fn leads_to(ctx: &Ctx<'_>, given: &str, arn: &str) -> Result<bool, ApiError> {
    if is_own(ctx, given) {
        return Ok(find(ctx, given)?.record.arn.as_str() == arn);
    }
    let named = super::named(ctx, given)?;
    Ok(named.is_some_and(|named| KmsKey::arn(&named.scope, &named.id).as_str() == arn))
}

fn refuse_options(grants: bool, recipient: bool, algorithm: shapes::EncryptionAlgorithmSpec) -> Result<(), ApiError> {
    if grants {
        return Err(ApiError::client(
            "InvalidGrantTokenException",
            "There are no grants in this engine.",
        ));
    }
    if recipient {
        return Err(ApiError::validation("Recipient is not supported by this engine."));
    }
    if algorithm != shapes::EncryptionAlgorithmSpec::SymmetricDefault {
        return Err(ApiError::client(
            "InvalidKeyUsageException",
            "The key is symmetric: its only algorithm is SYMMETRIC_DEFAULT.",
        ));
    }
    Ok(())
}

fn dry(run: Option<bool>) -> Result<(), ApiError> {
    match run {
        Some(true) => Err(ApiError::client(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        )),
        Some(false) | None => Ok(()),
    }
}

pub(super) const SYMMETRIC: shapes::EncryptionAlgorithmSpec = shapes::EncryptionAlgorithmSpec::SymmetricDefault;

fn any<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

impl Operation for shapes::EncryptRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "Encrypt";
    type Output = shapes::EncryptResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let algorithm = self.encryption_algorithm.unwrap_or(SYMMETRIC);
        vec![asked(
            ask(ctx, "kms:Encrypt", &self.key_id),
            algorithm.as_str(),
            &self.encryption_context,
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let algorithm = request.encryption_algorithm.unwrap_or(SYMMETRIC);
        refuse_options(any(request.grant_tokens.as_ref()), false, algorithm)?;
        let key = usable(ctx, &request.key_id)?;
        dry(request.dry_run)?;
        Ok(shapes::EncryptResponse {
            ciphertext_blob: Some(sealed(ctx, &key, &request.encryption_context, &request.plaintext)?),
            key_id: Some(key.arn.to_string()),
            encryption_algorithm: Some(algorithm),
        })
    }
}

impl Operation for shapes::DecryptRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "Decrypt";
    type Output = shapes::DecryptResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let blob = self.ciphertext_blob.as_deref().and_then(parted);
        // The key of the ciphertext decides; a request may only narrow it down.
        let given = blob.map(|(arn, _)| arn).or(self.key_id.as_deref()).unwrap_or("unknown");
        let algorithm = self.encryption_algorithm.unwrap_or(SYMMETRIC);
        let mut question = ask(ctx, "kms:Decrypt", given);
        if let Some(named) = self
            .key_id
            .as_deref()
            .and_then(|named| super::named(ctx, named).ok().flatten())
            && let Some(alias) = named.alias
            && !question.context.contains_key("kms:requestalias")
        {
            question = question.with("kms:RequestAlias", alias);
        }
        vec![asked(question, algorithm.as_str(), &self.encryption_context)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let algorithm = request.encryption_algorithm.unwrap_or(SYMMETRIC);
        refuse_options(
            any(request.grant_tokens.as_ref()),
            request.recipient.is_some(),
            algorithm,
        )?;
        let invalid = || ApiError::client("InvalidCiphertextException", "");
        let blob = request.ciphertext_blob.unwrap_or_default();
        let (arn, text) = parted(&blob).ok_or_else(invalid)?;
        if let Some(wanted) = &request.key_id
            && !leads_to(ctx, wanted, arn)?
        {
            return Err(ApiError::client(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ));
        }
        let key = usable(ctx, arn).map_err(|error| {
            if error.code == "NotFoundException" {
                invalid()
            } else {
                error
            }
        })?;
        // A name that leads to the key without being its own is a forged one.
        if key.arn.as_str() != arn {
            return Err(invalid());
        }
        let context = bound(&key.arn, &request.encryption_context)?;
        let plain = crypto::open(&material(ctx, &key)?, &context, text).map_err(|_| invalid())?;
        dry(request.dry_run)?;
        Ok(shapes::DecryptResponse {
            key_id: Some(key.arn.to_string()),
            plaintext: Some(plain),
            encryption_algorithm: Some(algorithm),
            ..Default::default()
        })
    }
}

/// How long a data key is.
fn length(spec: Option<shapes::DataKeySpec>, bytes: Option<i64>) -> Result<usize, ApiError> {
    match (spec, bytes) {
        (Some(shapes::DataKeySpec::Aes256), None) => Ok(32),
        (Some(shapes::DataKeySpec::Aes128), None) => Ok(16),
        (None, Some(bytes)) => usize::try_from(bytes).map_err(ApiError::internal),
        _ => Err(ApiError::validation(
            "Please specify either number of bytes or key spec.",
        )),
    }
}

impl Operation for shapes::GenerateDataKeyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "GenerateDataKey";
    type Output = shapes::GenerateDataKeyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask(ctx, "kms:GenerateDataKey", &self.key_id);
        vec![asked(question, SYMMETRIC.as_str(), &self.encryption_context)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        refuse_options(
            any(request.grant_tokens.as_ref()),
            request.recipient.is_some(),
            SYMMETRIC,
        )?;
        let length = length(request.key_spec, request.number_of_bytes)?;
        let key = usable(ctx, &request.key_id)?;
        dry(request.dry_run)?;
        let plain = crypto::random(ctx.ids, length).map_err(ApiError::internal)?;
        Ok(shapes::GenerateDataKeyResponse {
            ciphertext_blob: Some(sealed(ctx, &key, &request.encryption_context, &plain)?),
            plaintext: Some(plain),
            key_id: Some(key.arn.to_string()),
            ..Default::default()
        })
    }
}

impl Operation for shapes::GenerateDataKeyWithoutPlaintextRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "GenerateDataKeyWithoutPlaintext";
    type Output = shapes::GenerateDataKeyWithoutPlaintextResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask(ctx, "kms:GenerateDataKeyWithoutPlaintext", &self.key_id);
        vec![asked(question, SYMMETRIC.as_str(), &self.encryption_context)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        refuse_options(any(request.grant_tokens.as_ref()), false, SYMMETRIC)?;
        let length = length(request.key_spec, request.number_of_bytes)?;
        let key = usable(ctx, &request.key_id)?;
        dry(request.dry_run)?;
        let plain = crypto::random(ctx.ids, length).map_err(ApiError::internal)?;
        Ok(shapes::GenerateDataKeyWithoutPlaintextResponse {
            ciphertext_blob: Some(sealed(ctx, &key, &request.encryption_context, &plain)?),
            key_id: Some(key.arn.to_string()),
            ..Default::default()
        })
    }
}
