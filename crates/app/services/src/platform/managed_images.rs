//! Images that need S3 at run time and therefore cannot be isolated (NI-20, CC-12). A list, so that operators can change
//! it.

use std::collections::BTreeSet;

/// Accounts that publish the managed framework images, as the SDK's public image tables name them.
const ACCOUNTS: [&str; 17] = [
    "121021644041",
    "141502667606",
    "246618743249",
    "257758044811",
    "341280168497",
    "354813040037",
    "366743142698",
    "462105765813",
    "492215442770",
    "520713654638",
    "662702820516",
    "683313688378",
    "720646828776",
    "737474898029",
    "746614075791",
    "763104351884",
    "783357654285",
];

/// (family, repository names): CC-12.
const FAMILIES: [(&str, &[&str]); 4] = [
    ("Chainer", &["sagemaker-chainer"]),
    (
        "PyTorch",
        &[
            "sagemaker-pytorch",
            "sagemaker-pytorch-eia",
            "sagemaker-pytorch-graviton",
            "pytorch-training",
            "pytorch-training-eia",
            "pytorch-training-graviton",
            "pytorch-inference",
            "pytorch-inference-eia",
            "pytorch-inference-graviton",
        ],
    ),
    ("scikit-learn", &["sagemaker-scikit-learn"]),
    (
        "Reinforcement learning",
        &[
            "sagemaker-rl-tensorflow",
            "sagemaker-rl-mxnet",
            "sagemaker-rl-coach-container",
            "sagemaker-rl-ray-container",
            "sagemaker-rl-vw-container",
        ],
    ),
];

/// Which images refuse isolation: a repository name together with a managed registry account.
#[derive(Clone, Debug)]
pub struct ManagedImages {
    /// Accounts of the managed registries.
    pub accounts: BTreeSet<String>,
    /// (family, repository).
    pub repositories: Vec<(String, String)>,
}

impl Default for ManagedImages {
    fn default() -> Self {
        let repositories = FAMILIES.iter().flat_map(|(family, repositories)| {
            repositories
                .iter()
                .map(|repository| ((*family).to_string(), (*repository).to_string()))
        });
        Self {
            accounts: ACCOUNTS.iter().map(ToString::to_string).collect(),
            repositories: repositories.collect(),
        }
    }
}

impl ManagedImages {
    /// The family that refuses isolation and that the image belongs to; `None` for every other image, also for one
    /// with the same repository name in another account.
    pub fn family_without_isolation(&self, reference: &str) -> Option<&str> {
        let (registry, path) = reference.split_once('/')?;
        let (account, rest) = registry.split_once('.')?;
        if !rest.starts_with("dkr.ecr.") || !self.accounts.contains(account) {
            return None;
        }
        let repository = path.split(['@', ':']).next()?;
        self.repositories
            .iter()
            .find(|(_, name)| name == repository)
            .map(|(family, _)| family.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-12
    #[test]
    fn every_repository_of_the_families_is_known() {
        let images = ManagedImages::default();
        let listed = [
            ("Chainer", &["sagemaker-chainer"][..]),
            (
                "PyTorch",
                &[
                    "sagemaker-pytorch",
                    "sagemaker-pytorch-eia",
                    "sagemaker-pytorch-graviton",
                    "pytorch-training",
                    "pytorch-training-eia",
                    "pytorch-training-graviton",
                    "pytorch-inference",
                    "pytorch-inference-eia",
                    "pytorch-inference-graviton",
                ],
            ),
            ("scikit-learn", &["sagemaker-scikit-learn"]),
            (
                "Reinforcement learning",
                &[
                    "sagemaker-rl-tensorflow",
                    "sagemaker-rl-mxnet",
                    "sagemaker-rl-coach-container",
                    "sagemaker-rl-ray-container",
                    "sagemaker-rl-vw-container",
                ],
            ),
        ];
        for (family, repositories) in listed {
            for repository in repositories {
                let of = |account: &str| {
                    let reference = format!("{account}.dkr.ecr.eu-west-1.amazonaws.com/{repository}:1");
                    images.family_without_isolation(&reference).map(String::from)
                };
                assert_eq!(of("763104351884").as_deref(), Some(family), "{repository}");
                assert_eq!(of("123456789012"), None, "{repository}: a customer's");
            }
        }
    }

    /// Proves: NI-20, D-6
    #[test]
    fn the_four_families_refuse_isolation_and_the_same_names_elsewhere_do_not() {
        let images = ManagedImages::default();
        let family = |account: &str, repository: &str| {
            let reference = format!("{account}.dkr.ecr.us-east-1.amazonaws.com/{repository}:1.0");
            images.family_without_isolation(&reference).map(String::from)
        };
        for (repository, wanted) in [
            ("sagemaker-chainer", "Chainer"),
            ("pytorch-training", "PyTorch"),
            ("sagemaker-scikit-learn", "scikit-learn"),
            ("sagemaker-rl-ray-container", "Reinforcement learning"),
        ] {
            assert_eq!(family("763104351884", repository).as_deref(), Some(wanted));
            assert_eq!(
                family("123456789012", repository),
                None,
                "a customer's image of that name"
            );
        }
        assert_eq!(family("763104351884", "tensorflow-training"), None);
        assert_eq!(images.family_without_isolation("pytorch-training:1"), None);
        let digest = "763104351884.dkr.ecr.cn-north-1.amazonaws.com.cn/pytorch-training@sha256:00";
        assert_eq!(images.family_without_isolation(digest), Some("PyTorch"));
    }
}
