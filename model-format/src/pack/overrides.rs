//! Options for single matrices, from a TOML file:
//!
//! ```toml
//! [[matrix]]
//! name = "encoder.layers.*.feed_forward.*"   # a name as in the checkpoint; `*` stands for anything
//! weights = "int4"                           # as after --weights
//! group = 64                                 # inputs that share a multiplier of int4, int3 or trellis, a multiple of 16 up to 65,536
//! block = "4x4"                              # as after --block, or "none": kept whole
//! sparsity = 0.5                             # as after --sparsity
//! ```
//!
//! What an entry leaves out stays as the options for all matrices say; of several entries for a matrix the last decides.

use super::error::PackError;
use super::options::{Sparse, Storage, Weights};
use crate::matrix::is_group;
use crate::sparse::BlockShape;
use serde::Deserialize;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Entries of a TOML file, in order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    #[serde(default, rename = "matrix")]
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    weights: Option<String>,
    group: Option<usize>,
    block: Option<String>,
    sparsity: Option<f32>,
}

impl Overrides {
    /// Reads the entries. A sparsity without a block takes `block`, where nothing else says which.
    ///
    /// # Errors
    /// When the text is no TOML, an option is unknown, or a value is none that it can have.
    pub fn parse(text: &str) -> Result<Self, PackError> {
        let overrides: Self = toml::from_str(text).map_err(|error| PackError::Options(error.to_string()))?;
        for entry in &overrides.entries {
            let usual = match entry.group {
                Some(_) => Storage { weights: Weights::Int4 { group_inputs: None }, sparse: None },
                None => Storage::default(),
            };
            entry.apply(usual, BlockShape::Outputs16Inputs4)?;
        }
        Ok(overrides)
    }

    /// How the matrix `name` is stored, where all others are as `storage` says, and marks the entries that name it in
    /// `used`, one for each entry.
    pub(crate) fn storage(
        &self,
        name: &str,
        storage: Storage,
        block: BlockShape,
        used: &mut [bool],
    ) -> Result<Storage, PackError> {
        let mut result = storage;
        for (entry, used) in self.entries.iter().zip(used) {
            if matches(&entry.name, name) || matches(&entry.name, &format!("{name}.weight")) {
                *used = true;
                result = entry.apply(result, block)?;
            }
        }
        Ok(result)
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Fails where an entry names nothing: a misspelt name must not pass for one that was followed.
    pub(crate) fn check_used(&self, used: &[bool]) -> Result<(), PackError> {
        match self.entries.iter().zip(used).find(|(_, used)| !**used) {
            Some((entry, _)) => Err(PackError::Options(format!("no matrix is called `{}`", entry.name))),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn apply(&self, storage: Storage, usual_block: BlockShape) -> Result<Storage, PackError> {
        let at_fault = |what: &str, value: &str| {
            PackError::Options(format!("`{}`: {what} `{value}` is unknown", self.name))
        };
        let mut result = storage;
        if let Some(weights) = &self.weights {
            result.weights = Weights::from_name(weights).ok_or_else(|| at_fault("weights", weights))?;
        }
        if let Some(group) = self.group {
            let Some(group_inputs) = result.weights.group_inputs() else {
                return Err(PackError::Options(format!(
                    "`{}`: only int4, int3 and trellis have a `group`",
                    self.name
                )));
            };
            if !is_group(group) {
                return Err(at_fault("group", &group.to_string()));
            }
            *group_inputs = Some(group);
        }
        match self.block.as_deref() {
            None => {}
            Some("none") => result.sparse = None,
            Some(name) => {
                let block = BlockShape::ALL.into_iter().find(|shape| shape.to_string() == name);
                let block = block.ok_or_else(|| at_fault("block", name))?;
                let sparsity = result.sparse.and_then(|sparse| sparse.sparsity);
                result.sparse = Some(Sparse { block, sparsity });
            }
        }
        if let Some(sparsity) = self.sparsity {
            if !(0.0..=1.0).contains(&sparsity) || self.block.as_deref() == Some("none") {
                return Err(at_fault("sparsity", &sparsity.to_string()));
            }
            let block = result.sparse.map_or(usual_block, |sparse| sparse.block);
            result.sparse = Some(Sparse { block, sparsity: Some(sparsity) });
        }
        Ok(result)
    }
}

/// Whether `name` is what `pattern` says, in which `*` stands for any number of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in
            [("a.b", "a.b"), ("*", ""), ("*", "a"), ("a.*.c", "a.b.b.c"), ("*b*", "abc"), ("a*", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a.b", "a.bc"), ("a.b", "a"), ("a.*.c", "a.c"), ("*b", "abc"), ("b*", "abc"), ("*aa*a", "aa")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_entry_decides() {
        let text = "[[matrix]]\nname = \"encoder.*\"\nweights = \"int4\"\ngroup = 64\nblock = \"4x4\"\nsparsity = 0.25\n\
                    [[matrix]]\nname = \"*.value\"\nweights = \"int8\"\nblock = \"none\"\n\
                    [[matrix]]\nname = \"encoder.up.weight\"\nsparsity = 0.5\n";
        let overrides = Overrides::parse(text).expect("options");
        let mut used = [false; 3];
        let mut of = |name: &str| {
            overrides
                .storage(name, Storage::default(), BlockShape::Outputs4Inputs16, &mut used)
                .expect("a way to store it")
        };
        let block = BlockShape::Outputs4Inputs4;
        let int4 = Weights::Int4 { group_inputs: Some(64) };
        assert_eq!(
            of("encoder.up"),
            Storage { weights: int4, sparse: Some(Sparse { block, sparsity: Some(0.5) }) }
        );
        assert_eq!(of("encoder.value"), Storage::default());
        assert_eq!(of("decoder.up"), Storage::default());
        assert!(overrides.check_used(&used).is_ok());
        let error = overrides.check_used(&[true, false, true]).expect_err("one names nothing");
        assert!(error.to_string().contains("no matrix is called `*.value`"), "{error}");
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (text, cause) in [
            ("[[matrix]]\nname = \"a\"\nbits = 4\n", "unknown field `bits`"),
            ("[[matrices]]\nname = \"a\"\n", "unknown field `matrices`"),
            ("[[matrix]]\nweights = \"int8\"\n", "missing field `name`"),
            ("[[matrix]]\nname = \"a\"\nweights = \"int2\"\n", "weights `int2` is unknown"),
            ("[[matrix]]\nname = \"a\"\ngroup = 24\n", "group `24` is unknown"),
            ("[[matrix]]\nname = \"a\"\ngroup = 65552\n", "group `65552` is unknown"),
            (
                "[[matrix]]\nname = \"a\"\nweights = \"int8\"\ngroup = 32\n",
                "`a`: only int4, int3 and trellis have a `group`",
            ),
            ("[[matrix]]\nname = \"a\"\nblock = \"8x8\"\n", "block `8x8` is unknown"),
            ("[[matrix]]\nname = \"a\"\nsparsity = 1.5\n", "sparsity `1.5` is unknown"),
            ("[[matrix]]\nname = \"a\"\nsparsity = nan\n", "sparsity `NaN` is unknown"),
            ("[[matrix]\n", "TOML parse error"),
        ] {
            let error = Overrides::parse(text).expect_err(cause).to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }
}
