//! Keys as another service uses them in its caller's name, as S3 does: the caller must be allowed, by the key's policy and
//! its own, to use the key through that service (`kms:ViaService`).

use super::cryptography::{Context, SYMMETRIC, asked, new_material, opened_under, sealed_under};
use super::{crypto, enabled, missing_in, named_in, stored};
use crate::Caller;
use crate::audit::authorize;
use crate::context::{EndpointSource, Source};
use crate::iam::credentials::MasterKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isolarium_model::kms::{KmsAlias, KmsKey, KmsState};
use isolarium_model::time::{Clock, IdSource, uuid};
use isolarium_model::{AccountId, Arn, Region, Scope};
use isolarium_policy::Question;
use isolarium_store::{Batch, Expect, StateStore, StoreError};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The alias of the key that S3 uses when its caller names none.
const S3_ALIAS: &str = "alias/aws/s3";
/// How a service asks for a key in its caller's name.
struct Asking {
    service: &'static str,
    /// What the caller must be allowed to do with the key.
    generate: &'static str,
    /// The caller gives the service a grant; what the service does then, it does by that.
    grants: bool,
}

/// S3 uses a key as its caller.
const OF_S3: Asking = Asking {
    service: "s3",
    generate: "kms:GenerateDataKey",
    grants: false,
};

/// SageMaker is given a grant for a storage volume, as the storage of AWS is.
const OF_VOLUMES: Asking = Asking {
    service: "sagemaker",
    generate: "kms:CreateGrant",
    grants: true,
};

/// Bytes of a data key.
const DATA_KEY: usize = 32;

/// The keys, and what opens them.
pub struct KeyStore {
    pub store: Arc<dyn StateStore>,
    pub master: MasterKey,
    pub ids: Arc<dyn IdSource>,
    pub clock: Arc<dyn Clock>,
}

/// A use of a key.
pub struct Use<'a> {
    /// Who asked the service.
    pub caller: &'a Caller,
    /// Where the service works.
    pub region: &'a Region,
    /// The encryption context.
    pub context: &'a BTreeMap<String, String>,
}

/// A new data key.
pub struct NewDataKey {
    /// The key that seals it.
    pub key_arn: Arn,
    pub plain: [u8; DATA_KEY],
    /// Sealed; base64.
    pub sealed: String,
}

/// Why a key was not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// IAM's words.
    #[error("{0}")]
    Denied(String),
    /// The key store's own answer.
    #[error("{}", .0.message)]
    Refused(ApiError),
    /// The engine's own fault.
    #[error("the key store failed")]
    Engine(#[source] ApiError),
}

impl From<ApiError> for KeyFault {
    fn from(error: ApiError) -> Self {
        if error.status >= 500 {
            Self::Engine(error)
        } else {
            Self::Refused(error)
        }
    }
}

impl From<StoreError> for KeyFault {
    fn from(error: StoreError) -> Self {
        stored(error).into()
    }
}

impl KeyStore {
    /// Makes a data key under the key that `given` names, or under the account's `aws/s3`.
    ///
    /// # Errors
    /// `Denied` without `kms:GenerateDataKey`; `Refused` when there is no such key or it may not be used now.
    pub fn generate(&self, of: &Use<'_>, given: Option<&str>) -> Result<NewDataKey, KeyFault> {
        self.generate_as(of, &OF_S3, given.unwrap_or(S3_ALIAS))
    }

    /// Makes the data key of a storage volume under the key that `given` names.
    ///
    /// # Errors
    /// `Denied` without `kms:CreateGrant`; `Refused` when there is no such key or it may not be used now.
    pub fn generate_for_volume(&self, of: &Use<'_>, given: &str) -> Result<NewDataKey, KeyFault> {
        self.generate_as(of, &OF_VOLUMES, given)
    }

    /// Opens a data key that [`Self::generate_for_volume`] made, by the grant that was given then: nobody is asked, but the
    /// key must be one that can be used now.
    ///
    /// # Errors
    /// `Refused` when the key is gone or may not be used now, or the context is another.
    pub fn open_for_volume(&self, of: &Use<'_>, key_arn: &Arn, sealed: &str) -> Result<[u8; DATA_KEY], KeyFault> {
        self.open_unasked(of, key_arn, sealed)
    }

    fn generate_as(&self, of: &Use<'_>, asking: &Asking, given: &str) -> Result<NewDataKey, KeyFault> {
        let own = self.own_scope(of)?;
        if self.means_s3s_own(&own, given) {
            self.ensure_s3s_own(&own)?;
        }
        let named = named_in(&*self.store, &own, given)?;
        // Whether another account's alias exists, and which key it means, shows to no one who may not use that.
        let foreign = given
            .parse::<Arn>()
            .ok()
            .filter(|arn| arn.account().as_ref() != Some(&own.account));
        let denied = || {
            foreign
                .as_ref()
                .map_or(Ok(()), |alias| self.allow(of, asking, asking.generate, alias, None))
        };
        let Some(named) = named else {
            denied()?;
            return Err(missing_in(&own, given).into());
        };
        let arn = KmsKey::arn(&named.scope, &named.id.replace(['/', ':'], "-"));
        let allowed = self.allow(of, asking, asking.generate, &arn, named.alias.as_deref());
        if allowed.is_err() && named.alias.is_some() {
            denied()?;
        }
        allowed?;
        let key = self.usable(&named.scope, &named.id, given)?;
        self.new_data_key(key, of.context)
    }

    /// Opens a data key that [`Self::generate`] made.
    ///
    /// # Errors
    /// `Denied` without `kms:Decrypt`; `Refused` when the key is gone or may not be used now, or the context is another.
    pub fn open(&self, of: &Use<'_>, key_arn: &Arn, sealed: &str) -> Result<[u8; DATA_KEY], KeyFault> {
        self.allow(of, &OF_S3, "kms:Decrypt", key_arn, None)?;
        self.open_unasked(of, key_arn, sealed)
    }

    fn open_unasked(&self, of: &Use<'_>, key_arn: &Arn, sealed: &str) -> Result<[u8; DATA_KEY], KeyFault> {
        let own = self.own_scope(of)?;
        let named = named_in(&*self.store, &own, key_arn.as_str())?;
        let named = named.ok_or_else(|| missing_in(&own, key_arn.as_str()))?;
        let key = self.usable(&named.scope, &named.id, key_arn.as_str())?;
        self.opened(&key, of.context, sealed)
    }

    /// Makes a data key that the engine opens for whoever may read the object (SSE-S3).
    ///
    /// # Errors
    /// `Engine`.
    pub fn generate_managed(
        &self,
        region: &Region,
        context: &BTreeMap<String, String>,
    ) -> Result<NewDataKey, KeyFault> {
        let key = self.managed(region)?;
        self.new_data_key(key, context)
    }

    /// Opens a data key that [`Self::generate_managed`] made.
    ///
    /// # Errors
    /// `Engine`.
    pub fn open_managed(
        &self,
        region: &Region,
        context: &BTreeMap<String, String>,
        sealed: &str,
    ) -> Result<[u8; DATA_KEY], KeyFault> {
        self.opened(&self.managed(region)?, context, sealed)
    }

    /// Whether an own key that `given` names could be used now; of other accounts' keys nothing is told.
    ///
    /// # Errors
    /// `Refused` in the key store's words.
    pub fn check(&self, own: &Scope, given: &str) -> Result<(), KeyFault> {
        if self.means_s3s_own(own, given) {
            return Ok(());
        }
        let named = named_in(&*self.store, own, given)?.ok_or_else(|| missing_in(own, given))?;
        if named.scope == *own {
            self.usable(&named.scope, &named.id, given)?;
        }
        Ok(())
    }

    fn own_scope(&self, of: &Use<'_>) -> Result<Scope, KeyFault> {
        let account = of.caller.principal.account();
        let account = account.ok_or_else(|| KeyFault::Denied("Access Denied".into()))?;
        Ok(Scope {
            account: account.clone(),
            region: of.region.clone(),
        })
    }

    fn usable(&self, scope: &Scope, id: &str, given: &str) -> Result<KmsKey, KeyFault> {
        let found = self.store.get::<KmsKey>(&KmsKey::key(scope, id))?;
        let now = self.clock.now();
        let key = found.map(|found| found.record).filter(|key| !key.is_gone(now));
        let key = key.ok_or_else(|| missing_in(scope, given))?;
        Ok(enabled(key)?)
    }

    fn new_data_key(&self, key: KmsKey, context: &BTreeMap<String, String>) -> Result<NewDataKey, KeyFault> {
        let bytes = crypto::random(&*self.ids, DATA_KEY).map_err(ApiError::internal)?;
        let sealed = sealed_under(&self.master, &*self.ids, &key, &bound(context), &bytes)?;
        Ok(NewDataKey {
            key_arn: key.arn,
            plain: whole(bytes)?,
            sealed: STANDARD.encode(sealed),
        })
    }

    fn opened(&self, key: &KmsKey, context: &BTreeMap<String, String>, sealed: &str) -> Result<[u8; 32], KeyFault> {
        let blob = STANDARD.decode(sealed).map_err(ApiError::internal)?;
        let plain = opened_under(&self.master, key, &bound(context), &blob)?;
        let plain =
            plain.ok_or_else(|| ApiError::client("InvalidCiphertextException", "The data key cannot be opened."))?;
        whole(plain)
    }

    /// Asks IAM in the caller's name, as the service that it called.
    fn allow(
        &self,
        of: &Use<'_>,
        asking: &Asking,
        action: &str,
        arn: &Arn,
        alias: Option<&str>,
    ) -> Result<(), KeyFault> {
        let account = self.own_scope(of)?.account;
        let mut caller = of.caller.clone();
        if let Source::Endpoint(endpoint) = &of.caller.source {
            // What an endpoint's policy lets through is the request to the service, not what the service does then.
            caller.source = Source::Endpoint(EndpointSource {
                policy: None,
                ..endpoint.clone()
            });
        }
        let authority =
            crate::iam::authority_of(&*self.store, &caller, self.clock.now()).map_err(ApiError::internal)?;
        let question = Question::on(action, arn)
            .with("kms:CallerAccount", account.to_string())
            .with(
                "kms:ViaService",
                format!("{}.{}.amazonaws.com", asking.service, of.region),
            )
            .with("aws:ViaAWSService", "true");
        let question = match asking.grants {
            true => question.with("kms:GrantIsForAWSResource", "true"),
            false => question,
        };
        let question = asked(question, SYMMETRIC.as_str(), &bound(of.context));
        let question = match alias {
            Some(alias) => question.with("kms:RequestAlias", alias),
            None => question,
        };
        let question = crate::resource_tags::added(&*self.store, None, &caller.principal, question)?;
        let side = crate::iam::resource_side(&*self.store, &caller.principal, &question)?;
        authorize(&caller, (), &authority, &[question], &|_| side.clone())
            .map(|_| ())
            .map_err(|denial| KeyFault::Denied(denial.to_string()))
    }

    fn means_s3s_own(&self, own: &Scope, given: &str) -> bool {
        given == S3_ALIAS || given == KmsAlias::arn(own, S3_ALIAS).as_str()
    }

    /// The account's `aws/s3`, made when it is first wanted.
    fn ensure_s3s_own(&self, own: &Scope) -> Result<(), KeyFault> {
        let at = KmsAlias::key(own, S3_ALIAS);
        if self.store.get::<KmsAlias>(&at)?.is_some() {
            return Ok(());
        }
        let (id, now) = (uuid(&*self.ids), self.clock.now());
        let about = "Default key that protects my S3 objects when no other key is defined";
        let key = self.service_key(own, &id, about, s3s_policy(own))?;
        let alias = KmsAlias {
            name: S3_ALIAS.into(),
            key_id: id.clone(),
            created: now,
            updated: now,
        };
        let batch =
            Batch::default()
                .put(&at, Expect::Absent, &alias)?
                .put(&KmsKey::key(own, &id), Expect::Absent, &key)?;
        match self.store.commit(batch) {
            // Somebody else wanted it first too.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The engine's own key for SSE-S3. It belongs to an account that nobody has, so that nobody sees or names it.
    fn managed(&self, region: &Region) -> Result<KmsKey, KeyFault> {
        let account: AccountId = "000000000000".parse().map_err(ApiError::internal)?;
        let scope = Scope {
            account,
            region: region.clone(),
        };
        let at = KmsKey::key(&scope, "s3");
        loop {
            if let Some(found) = self.store.get::<KmsKey>(&at)? {
                return Ok(found.record);
            }
            let nobody = r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned();
            let key = self.service_key(&scope, "s3", "SSE-S3", nobody)?;
            match self.store.commit(Batch::default().put(&at, Expect::Absent, &key)?) {
                Ok(_) => return Ok(key),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn service_key(&self, scope: &Scope, id: &str, description: &str, policy: String) -> Result<KmsKey, KeyFault> {
        let arn = KmsKey::arn(scope, id);
        Ok(KmsKey {
            id: id.into(),
            created: self.clock.now(),
            state: KmsState::Enabled,
            description: description.into(),
            policy,
            tags: BTreeMap::new(),
            material: new_material(&self.master, &*self.ids, &arn)?,
            of_service: true,
            arn,
        })
    }
}

fn bound(context: &BTreeMap<String, String>) -> Context {
    Some(
        context
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    )
}

fn whole(bytes: Vec<u8>) -> Result<[u8; DATA_KEY], KeyFault> {
    let wrong = |bytes: Vec<u8>| ApiError::internal(WrongLength(bytes.len()));
    Ok(bytes.try_into().map_err(wrong)?)
}

#[derive(Debug, thiserror::Error)]
#[error("a data key has {0} bytes")]
struct WrongLength(usize);

/// Everybody of the account who uses S3 may use the key through S3; nobody may change it.
fn s3s_policy(own: &Scope) -> String {
    let (account, region) = (&own.account, &own.region);
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "auto-s3-2",
  "Statement" : [ {{
    "Sid" : "Use through S3",
    "Effect" : "Allow",
    "Principal" : {{ "AWS" : "*" }},
    "Action" : [ "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey" ],
    "Resource" : "*",
    "Condition" : {{ "StringEquals" : {{
      "kms:ViaService" : "s3.{region}.amazonaws.com", "kms:CallerAccount" : "{account}"
    }} }}
  }}, {{
    "Sid" : "Look at the key",
    "Effect" : "Allow",
    "Principal" : {{ "AWS" : "arn:aws:iam::{account}:root" }},
    "Action" : [ "kms:Describe*", "kms:Get*", "kms:List*" ],
    "Resource" : "*"
  }} ]
}}"#
    )
}
