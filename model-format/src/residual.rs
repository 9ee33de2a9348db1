//! What a layer adds to a matrix that it shares with others.
//!
//! ```text
//! y = W x + left (right x) + diagonal * x + bias
//! ```
//!
//! `W` is the shared matrix; factors, diagonal and bias are the layer's own. There are no chains: a slot names a tensor,
//! never another layer, so that sharing can have no cycle.

use crate::error::Rule;
use crate::layer::{Layer, LayerKind, LayerTable, Part, Role};
use crate::matrix::Matrix;

/// A matrix of low rank, `left x right`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `[outputs, rank]`.
    pub left: Matrix<'a>,
    /// `[rank, inputs]`.
    pub right: Matrix<'a>,
}

impl LowRank<'_> {
    /// Values between the factors.
    pub fn rank(&self) -> usize {
        self.right.outputs()
    }
}

/// The roles whose matrices layers share and may add to.
const MATRIX_ROLES: [Role; 11] = [
    Role::Query,
    Role::Key,
    Role::Value,
    Role::AttentionOutput,
    Role::CrossQuery,
    Role::CrossKey,
    Role::CrossValue,
    Role::CrossOutput,
    Role::Up,
    Role::Gate,
    Role::Down,
];

/// Residuals and diagonals stand in blocks only, beside a matrix that another layer names too.
pub(crate) fn check_sharing(layers: LayerTable<'_>) -> Result<(), Rule> {
    for layer in layers.iter() {
        let is_block = matches!(layer.kind, LayerKind::EncoderBlock | LayerKind::DecoderBlock);
        for slot in layer.slots().filter(|slot| slot.part > Part::Bias) {
            if !is_block || !MATRIX_ROLES.contains(&slot.role) {
                return Err(Rule::SlotUnknown { layer: layer.index });
            }
        }
        for role in MATRIX_ROLES {
            check_role(layers, layer, role)?;
        }
    }
    Ok(())
}

fn check_role(layers: LayerTable<'_>, layer: Layer<'_>, role: Role) -> Result<(), Rule> {
    let parts = layer.parts(role);
    let own = [Part::ResidualLeft, Part::ResidualRight, Part::Diagonal];
    if own.into_iter().all(|part| parts.id(part).is_none()) {
        return Ok(());
    }
    let missing = Rule::SlotMissing { layer: layer.index, role: role.name() };
    let weight = parts.id(Part::Weight).ok_or(missing)?;
    let names_it = |other: Layer<'_>| other.index != layer.index && other.names_weight(weight);
    if layers.iter().any(names_it) {
        Ok(())
    } else {
        Err(Rule::NotShared { layer: layer.index, role: role.name() })
    }
}
