//! Which layers share their matrices, and what each keeps of its own beside them.
//!
//! Layers share either because the checkpoint says so (`share` in `config.json`: training did it), or because the caller
//! asks for it (`PackOptions::sharing`): every few layers become one, the mean of their matrices, and what they lose is
//! put back as far as a low rank and a diagonal can. Norms and biases are always a layer's own.

use super::checkpoint::{CheckpointConfig, ShareConfig};
use super::error::PackError;
use super::lay_out::{store_float, store_int8, store_vector};
use super::low_rank;
use super::network::Packer;
use super::options::{Storage, Weights};
use super::writer::SlotList;
use crate::layer::{Part, Role};
use std::format;
use std::str::FromStr;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// How many layers, one behind the other, share their matrices; every layer has its own where it is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups {
    /// Blocks of the encoder.
    pub encoder: Option<usize>,
    /// Blocks of the decoder.
    pub decoder: Option<usize>,
}

impl FromStr for Groups {
    type Err = String;

    /// Reads `encoder=3,decoder=2`, or one of the two.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut groups = Self::default();
        for part in text.split(',') {
            let (stack, layers) = part.split_once('=').ok_or(format!("`{part}` is not like `encoder=3`"))?;
            let layers = layers.parse().ok().filter(|&layers| layers > 0);
            let layers = layers.ok_or(format!("`{part}`: a group has at least one layer"))?;
            let place = match stack {
                "encoder" => &mut groups.encoder,
                "decoder" => &mut groups.decoder,
                _ => return Err(format!("`{stack}` is neither `encoder` nor `decoder`")),
            };
            if place.replace(layers).is_some() {
                return Err(format!("`{stack}` is named twice"));
            }
        }
        Ok(groups)
    }
}

/// How layers are made to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sharing {
    /// Which layers.
    pub groups: Groups,
    /// Rank of what each layer adds to the shared matrix; zero for nothing.
    pub residual_rank: usize,
    /// Whether each layer also adds to the diagonal of square matrices.
    pub diagonal: bool,
}

/// A layer's matrix that was replaced by a shared one.
#[derive(Debug, Clone)]
pub struct ShareReport {
    /// Its name in the checkpoint.
    pub name: String,
    /// The name of the matrix in its place.
    pub shared: String,
    /// Rank of what the layer adds.
    pub rank: usize,
    /// Root of the mean squared error over the root of the mean square, with the shared matrix alone.
    pub shared_error: f32,
    /// The same with what the layer adds. Rounding is not in it: that is told of each tensor.
    pub relative_error: f32,
}

/// Which layer's matrices each layer of a stack uses.
pub(crate) struct StackPlan {
    /// `encoder` or `decoder`.
    stack: &'static str,
    /// By layer, its group's first.
    owners: Vec<usize>,
    /// Whether the shared matrix is the mean of its users' own.
    merges: bool,
}

/// A matrix that several layers use.
pub(crate) struct SharedMatrix {
    id: u32,
    shape: [usize; 2],
    storage: Storage,
    /// `[outputs][inputs]`, as before rounding.
    rows: Vec<f32>,
}

/// A layer's place in its group.
struct Place {
    /// Name of the shared matrix, without `.weight`.
    owner: String,
    /// Names of all that use it, where they are to be merged.
    merged: Vec<String>,
}

/// What both stacks share.
pub(crate) fn plan(config: &CheckpointConfig, sharing: &Sharing) -> Result<[StackPlan; 2], PackError> {
    let ShareConfig { encoder, decoder } = &config.share;
    let Groups { encoder: encoder_group, decoder: decoder_group } = sharing.groups;
    Ok([
        plan_stack("encoder", config.encoder.layers, encoder.as_deref(), encoder_group)?,
        plan_stack("decoder", config.decoder.layers, decoder.as_deref(), decoder_group)?,
    ])
}

fn plan_stack(
    stack: &'static str,
    layers: usize,
    stated: Option<&[usize]>,
    group: Option<usize>,
) -> Result<StackPlan, PackError> {
    let owners = match (stated, group) {
        (None, None) => (0..layers).collect(),
        (None, Some(group)) if group == 0 || group > layers => {
            return Err(PackError::Share(format!("the {stack} has {layers} layers, no groups of {group}")));
        }
        (None, Some(group)) => (0..layers).map(|layer| layer / group * group).collect(),
        (Some(_), Some(_)) => {
            return Err(PackError::Share(format!("the checkpoint already says which {stack} layers share")));
        }
        (Some(owners), None) => {
            check_owners(stack, layers, owners)?;
            owners.to_vec()
        }
    };
    Ok(StackPlan { stack, owners, merges: group.is_some() })
}

/// A stated share names, for each layer, itself or one that names itself: no chain, and so no cycle.
fn check_owners(stack: &str, layers: usize, owners: &[usize]) -> Result<(), PackError> {
    if owners.len() != layers {
        let count = owners.len();
        return Err(PackError::Share(format!("`share.{stack}` has {count} entries for {layers} layers")));
    }
    for (layer, &owner) in owners.iter().enumerate() {
        match owners.get(owner) {
            Some(&own) if own == owner => {}
            Some(own) => {
                return Err(PackError::Share(format!(
                    "`share.{stack}`: layer {layer} uses those of layer {owner}, which has none but uses layer {own}'s"
                )));
            }
            None => {
                return Err(PackError::Share(format!(
                    "`share.{stack}`: layer {layer} uses those of layer {owner}, the last is {}",
                    layers.saturating_sub(1)
                )));
            }
        }
    }
    Ok(())
}

impl StackPlan {
    /// The place of `encoder.layers.4.attention.query`; `None` for a matrix that its layer has alone.
    fn place(&self, prefix: &str) -> Option<Place> {
        let rest = prefix.strip_prefix(self.stack)?.strip_prefix(".layers.")?;
        let (layer, matrix) = rest.split_once('.')?;
        let owner = *self.owners.get(layer.parse::<usize>().ok()?)?;
        let name = |layer: usize| format!("{}.layers.{layer}.{matrix}", self.stack);
        let members = self.owners.iter().enumerate().filter(|&(_, &of)| of == owner);
        let members: Vec<String> = members.map(|(layer, _)| name(layer)).collect();
        let merged = if self.merges { members.clone() } else { Vec::new() };
        (members.len() > 1).then_some(Place { owner: name(owner), merged })
    }
}

impl Packer<'_> {
    /// Whether other layers use the matrix `prefix` too. If so it, or what stands in its place, gets its slots.
    pub(super) fn shared_matrix(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        storage: Storage,
        shape: [usize; 2],
    ) -> Result<bool, PackError> {
        let Some(place) = self.share.iter().find_map(|stack| stack.place(prefix)) else {
            return Ok(false);
        };
        let Place { owner, merged } = place;
        if !self.shared.contains_key(&owner) {
            let name = format!("{owner}.weight");
            let rows =
                if merged.is_empty() { self.take(&name, &shape)? } else { self.mean(&merged, &shape)? };
            let [outputs, inputs] = shape;
            // A mean lies on nobody's grid.
            let grid = if merged.is_empty() { self.grid(&owner, storage.weights, shape)? } else { None };
            let id = self.writer.tensor(storage.store(&name, &rows, outputs, inputs, grid.as_ref())?);
            self.shared.insert(owner.clone(), SharedMatrix { id, shape, storage, rows });
        }
        match self.shared.get(&owner) {
            Some(shared) if shared.shape == shape && shared.storage != storage => {
                return Err(PackError::Share(format!(
                    "`{prefix}` uses `{owner}`, for which the options are others: an entry must name both or neither"
                )));
            }
            Some(shared) if shared.shape == shape => slots.push((role, Part::Weight, shared.id)),
            _ => {
                return Err(PackError::Share(format!(
                    "`{prefix}` cannot use `{owner}`: it has another shape"
                )));
            }
        }
        if merged.is_empty() {
            self.stated_residual(slots, role, prefix, storage.weights, shape)?;
        } else {
            self.own_residual(slots, role, prefix, &owner, storage.weights, shape)?;
        }
        Ok(true)
    }

    /// The mean of several matrices.
    fn mean(&self, names: &[String], shape: &[usize]) -> Result<Vec<f32>, PackError> {
        let mut sums = vec![0.0f64; shape.iter().product()];
        for name in names {
            let values = self.checkpoint.floats(&format!("{name}.weight"), shape)?;
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
        }
        Ok(sums.into_iter().map(|sum| (sum / names.len() as f64) as f32).collect())
    }

    /// What training left beside a shared matrix.
    fn stated_residual(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        weights: Weights,
        [outputs, inputs]: [usize; 2],
    ) -> Result<(), PackError> {
        let (left, right) = (format!("{prefix}.residual_left"), format!("{prefix}.residual_right"));
        if let Some(&[_, rank]) = self.checkpoint.shape(&left).as_deref() {
            if rank == 0 || rank > outputs.min(inputs) {
                return Err(PackError::Share(format!(
                    "`{left}` has rank {rank}: 1 to {} make sense, and none needs no tensor",
                    outputs.min(inputs)
                )));
            }
            let factors = [self.take(&left, &[outputs, rank])?, self.take(&right, &[rank, inputs])?];
            self.put_factors(slots, role, prefix, weights, factors, [outputs, rank, inputs]);
        }
        let diagonal = format!("{prefix}.diagonal");
        if self.unused.contains(&diagonal) {
            if outputs != inputs {
                return Err(PackError::Share(format!(
                    "`{diagonal}`: the matrix, {outputs} x {inputs}, is not square"
                )));
            }
            let values = self.take(&diagonal, &[outputs])?;
            self.put(slots, role, Part::Diagonal, store_vector(&diagonal, &values));
        }
        Ok(())
    }

    /// What a matrix has that the mean lacks, as far as the options let it keep that.
    fn own_residual(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        owner: &str,
        weights: Weights,
        shape: [usize; 2],
    ) -> Result<(), PackError> {
        let [outputs, inputs] = shape;
        let name = format!("{prefix}.weight");
        let own = self.take(&name, &shape)?;
        self.grid(prefix, weights, shape)?;
        let shared = self.shared.get(owner).map_or(&[][..], |shared| &shared.rows);
        let difference: Vec<f32> = own.iter().zip(shared).map(|(own, shared)| own - shared).collect();
        let power = norm(&own).max(f64::MIN_POSITIVE);
        let shared_error = (norm(&difference) / power) as f32;
        let rank = self.options.sharing.residual_rank;
        let diagonal = self.options.sharing.diagonal && outputs == inputs;
        let kept = low_rank::approximate(&difference, shape, rank, diagonal);
        let rank = kept.rank;
        let report = ShareReport {
            name: name.clone(),
            shared: owner.to_string(),
            rank,
            shared_error,
            relative_error: (norm(&kept.rest) / power) as f32,
        };
        self.reports.push(report);
        if rank > 0 {
            self.put_factors(slots, role, prefix, weights, [kept.left, kept.right], [outputs, rank, inputs]);
        }
        if let Some(values) = kept.diagonal {
            self.put(slots, role, Part::Diagonal, store_vector(&format!("{prefix}.diagonal"), &values));
        }
        Ok(())
    }

    /// Factors are int8, unless the matrix is f32: see `residual.rs` of the runtime for what each costs.
    fn put_factors(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        weights: Weights,
        [left, right]: [Vec<f32>; 2],
        [outputs, rank, inputs]: [usize; 3],
    ) {
        let store = if weights == Weights::Float { store_float } else { store_int8 };
        let left = store(&format!("{prefix}.residual_left"), &left, outputs, rank);
        self.put(slots, role, Part::ResidualLeft, left);
        let right = store(&format!("{prefix}.residual_right"), &right, rank, inputs);
        self.put(slots, role, Part::ResidualRight, right);
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_and_bad_ones_told() {
        let groups = |encoder, decoder| Ok(Groups { encoder, decoder });
        assert_eq!("encoder=3,decoder=2".parse(), groups(Some(3), Some(2)));
        assert_eq!("decoder=6".parse(), groups(None, Some(6)));
        for bad in [
            "",
            "encoder",
            "encoder=0",
            "encoder=-1",
            "encoder=x",
            "joiner=2",
            "encoder=2,encoder=2",
            "encoder=2,",
        ] {
            assert!(Groups::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plans_name_the_first_of_each_group() {
        let owners =
            |layers, group| plan_stack("encoder", layers, None, Some(group)).map(|plan| plan.owners).ok();
        assert_eq!(owners(7, 3), Some(vec![0, 0, 0, 3, 3, 3, 6]));
        assert_eq!(owners(3, 1), Some(vec![0, 1, 2]));
        assert_eq!(owners(3, 0), None);
        assert_eq!(owners(3, 4), None);
    }

    #[test]
    fn stated_shares_that_lead_nowhere_are_refused() {
        let check = |owners: &[usize]| check_owners("decoder", 3, owners).map_err(|error| error.to_string());
        assert_eq!(check(&[0, 0, 2]), Ok(()));
        assert_eq!(check(&[2, 2, 2]), Ok(()));
        for (owners, words) in [
            (&[0, 0][..], "2 entries for 3 layers"),
            (&[0, 7, 2], "layer 1 uses those of layer 7, the last is 2"),
            (&[0, 0, 1], "layer 2 uses those of layer 1, which has none but uses layer 0's"),
            (&[1, 0, 2], "layer 0 uses those of layer 1, which has none but uses layer 0's"),
        ] {
            let message = check(owners).expect_err("refused");
            assert!(message.contains(words), "{message}");
        }
    }
}
