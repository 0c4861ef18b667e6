//! Local images that stand for those of managed registries (CC-11): the operator's table. Descriptions go on showing the name
//! that was asked for.

use isolarium_model::ecr::{ImageReference, ImageVersion};
use std::collections::BTreeSet;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageAlias {
    /// Account of the registry that is named; `None`: any managed one.
    pub account: Option<String>,
    /// Pattern of the repository's name: `*` is any text, `?` any character.
    pub repository: String,
    /// Pattern of the tag. An image that is named by its digest has none, and fits `*` alone.
    pub tag: String,
    /// What runs in its place: a reference to an image of the engine's own registry.
    pub image: String,
}

/// The rows in their order; the first that fits counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageAliases(pub Vec<ImageAlias>);

impl ImageAliases {
    /// The reference that is run in place of this one; `None`: itself. `managed` are the accounts of managed registries.
    pub fn of(&self, reference: &ImageReference, managed: &BTreeSet<String>) -> Option<&str> {
        let account = reference.scope.account.as_str();
        let fits = |alias: &&ImageAlias| {
            let of_account = match &alias.account {
                Some(wanted) => wanted == account,
                None => managed.contains(account),
            };
            let of_version = match &reference.version {
                ImageVersion::Tag(tag) => like(&alias.tag, tag),
                ImageVersion::Digest(_) => alias.tag == "*",
            };
            of_account && of_version && like(&alias.repository, &reference.repository)
        };
        self.0.iter().find(fits).map(|alias| alias.image.as_str())
    }
}

/// Whether the whole text fits a pattern of `*` and `?`. In time of their product at most, whatever the pattern.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // Which beginnings of the pattern the text fits so far.
    let mut fits: Vec<bool> = vec![false; pattern.len() + 1];
    if let Some(empty) = fits.first_mut() {
        *empty = true;
    }
    let spread = |fits: &mut Vec<bool>| {
        let mut before = false;
        for (at, own) in fits.iter_mut().enumerate() {
            let star = at.checked_sub(1).and_then(|last| pattern.get(last)) == Some(&b'*');
            *own |= star && before;
            before = *own;
        }
    };
    spread(&mut fits);
    for byte in text {
        let mut next = vec![false; pattern.len() + 1];
        for (at, wanted) in pattern.iter().enumerate() {
            if !fits.get(at).copied().unwrap_or(false) {
                continue;
            }
            let to = match wanted {
                b'*' => at,
                b'?' => at + 1,
                plain if plain == byte => at + 1,
                _ => continue,
            };
            if let Some(slot) = next.get_mut(to) {
                *slot = true;
            }
        }
        spread(&mut next);
        fits = next;
    }
    fits.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(account: &str, rest: &str) -> ImageReference {
        format!("{account}.dkr.ecr.us-east-1.amazonaws.com/{rest}")
            .parse()
            .unwrap()
    }

    /// Proves: CC-11
    #[test]
    fn managed_images_are_found_in_the_table_and_a_customers_are_not() {
        let row = |account: Option<&str>, repository: &str, tag: &str, image: &str| ImageAlias {
            account: account.map(Into::into),
            repository: repository.into(),
            tag: tag.into(),
            image: image.into(),
        };
        let table = ImageAliases(vec![
            row(None, "sagemaker-scikit-learn", "1.*-cpu-py3", "local/sklearn:1"),
            row(None, "sagemaker-scikit-learn", "*", "local/sklearn:0"),
            row(Some("123456789012"), "mine", "v?", "local/mine:1"),
        ]);
        let managed = BTreeSet::from(["683313688378".to_string()]);
        let found = |account: &str, rest: &str| table.of(&reference(account, rest), &managed).map(str::to_owned);
        let local = |name: &str| Some(format!("local/{name}"));
        assert_eq!(
            found("683313688378", "sagemaker-scikit-learn:1.2-1-cpu-py3"),
            local("sklearn:1")
        );
        assert_eq!(
            found("683313688378", "sagemaker-scikit-learn:0.20.0"),
            local("sklearn:0")
        );
        let digest = format!("sagemaker-scikit-learn@sha256:{}", "0".repeat(64));
        assert_eq!(found("683313688378", &digest), local("sklearn:0"));
        assert_eq!(found("683313688378", "sagemaker-xgboost:1"), None);
        assert_eq!(
            found("123456789012", "sagemaker-scikit-learn:1.2-1-cpu-py3"),
            None,
            "a customer's image of that name"
        );
        assert_eq!(found("123456789012", "mine:v1"), local("mine:1"));
        assert_eq!(found("123456789012", "mine:v10"), None);
    }

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abd", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**", "x", true),
            ("1.*-py3", "1.2-cpu-py3", true),
            ("1.*-py3", "1.2-cpu-py38", false),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
    }
}
