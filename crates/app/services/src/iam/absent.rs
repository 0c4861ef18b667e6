//! What IAM has and this engine does not: passwords, second factors, certificates, identity providers, instance
//! profiles. Nothing here can make one, so there is none, and the operations that clients read them by say so (IAM-64).

use super::entity::{self, About};
use super::error;
use super::operation::operation;
use isolarium_model::iam::User;
use isolarium_policy::Question;
use isolarium_wire::shapes::iam as shapes;

operation!(
    "GetAccountPasswordPolicy", GetAccountPasswordPolicyInput -> GetAccountPasswordPolicyResponse,
    asks |_, _| vec![Question::any("iam:GetAccountPasswordPolicy")],
    does |_, ctx| {
        let account = &ctx.caller.scope.account;
        Err(error::no_such(format!(
            "The Password Policy with domain name {account} cannot be found."
        )))
    },
);

operation!(
    "GetLoginProfile", GetLoginProfileRequest -> GetLoginProfileResponse,
    asks |this, ctx| match (&this.user_name, ctx.caller.principal.principal_arn()) {
        (Some(name), _) => vec![About::named::<User>(ctx, name).asks("iam:GetLoginProfile")],
        (None, Some(own)) => vec![Question::on("iam:GetLoginProfile", &own)],
        (None, None) => vec![Question::any("iam:GetLoginProfile")],
    },
    does |request, ctx| {
        let name = request.user_name.unwrap_or_default();
        if !name.is_empty() {
            entity::load::<User>(ctx, &name)?;
        }
        Err(error::no_such(format!("Login Profile for User {name} cannot be found.")))
    },
);

/// Lists of the whole account.
macro_rules! empty_lists {
    ($($name:literal, $request:ident -> $output:ident { $($list:ident),* } $paged:ident;)*) => {
        $(operation!(
            $name, $request -> $output,
            asks |_, _| vec![Question::any(concat!("iam:", $name))],
            does |_, _ctx| Ok(empty_lists!(@$paged $output $($list)*)),
        );)*
    };
    (@pages $output:ident $list:ident) => {
        shapes::$output { $list: Vec::new(), is_truncated: Some(false), marker: None }
    };
    (@whole $output:ident $list:ident) => {
        shapes::$output { $list: Some(Vec::new()) }
    };
}

empty_lists!(
    "ListInstanceProfiles", ListInstanceProfilesRequest -> ListInstanceProfilesResponse { instance_profiles } pages;
    "ListVirtualMFADevices", ListVirtualMFADevicesRequest -> ListVirtualMFADevicesResponse { virtual_mfa_devices } pages;
    "ListServerCertificates", ListServerCertificatesRequest -> ListServerCertificatesResponse {
        server_certificate_metadata_list
    } pages;
    "ListSAMLProviders", ListSAMLProvidersRequest -> ListSAMLProvidersResponse { saml_provider_list } whole;
    "ListOpenIDConnectProviders", ListOpenIDConnectProvidersRequest -> ListOpenIDConnectProvidersResponse {
        open_id_connect_provider_list
    } whole;
);

/// Lists of one user, which must exist.
macro_rules! empty_lists_of_user {
    ($($name:literal, $request:ident -> $output:ident { $($member:ident : $value:expr),* };)*) => {
        $(operation!(
            $name, $request -> $output,
            asks |this, ctx| match (&this.user_name, ctx.caller.principal.principal_arn()) {
                (Some(name), _) => vec![About::named::<User>(ctx, name).asks(concat!("iam:", $name))],
                (None, Some(own)) => vec![Question::on(concat!("iam:", $name), &own)],
                (None, None) => vec![Question::any(concat!("iam:", $name))],
            },
            does |request, ctx| {
                if let Some(name) = &request.user_name {
                    entity::load::<User>(ctx, name)?;
                }
                Ok(shapes::$output { $($member: $value),* })
            },
        );)*
    };
}

empty_lists_of_user!(
    "ListMFADevices", ListMFADevicesRequest -> ListMFADevicesResponse {
        mfa_devices: Vec::new(), is_truncated: Some(false), marker: None
    };
    "ListSigningCertificates", ListSigningCertificatesRequest -> ListSigningCertificatesResponse {
        certificates: Vec::new(), is_truncated: Some(false), marker: None
    };
    "ListSSHPublicKeys", ListSSHPublicKeysRequest -> ListSSHPublicKeysResponse {
        ssh_public_keys: Some(Vec::new()), is_truncated: Some(false), marker: None
    };
    "ListServiceSpecificCredentials", ListServiceSpecificCredentialsRequest -> ListServiceSpecificCredentialsResponse {
        service_specific_credentials: Some(Vec::new()), is_truncated: Some(false), marker: None
    };
);
