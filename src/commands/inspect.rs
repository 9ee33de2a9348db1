//! `kinglet inspect`: what is in a model file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use kinglet_model_format::{FrontendKind, Layer, LayerKind, Matrix, Model, Tensor, VERSION};

use super::model;
use crate::failure::Failure;

/// Show what a model file holds
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet inspect models/en.kgl\n  kinglet inspect --licence models/en.kgl"
)]
pub struct Inspect {
    /// The model file
    model: PathBuf,
    /// Print the licence of the weights and where they come from, and nothing else
    #[arg(long, alias = "license")]
    licence: bool,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
}

impl Inspect {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let file = model::open(&self.model, false)?;
        let name = self.model.display().to_string();
        let model = model::parse(&name, &file)?;
        let mut out = io::stdout().lock();
        if self.licence {
            let texts = model.texts();
            writeln!(out, "{}\n\n{}", texts.licence.trim_end(), texts.provenance.trim_end())?;
            return Ok(());
        }
        overview(&model, file.len(), &mut out)?;
        layers(&model, &mut out)?;
        if self.tensors {
            tensors(&model, &mut out)?;
        }
        Ok(())
    }
}

fn overview(model: &Model<'_>, length: usize, out: &mut impl Write) -> io::Result<()> {
    let (texts, config) = (model.texts(), model.config());
    let stored: usize = model.tensors().iter().map(|tensor| tensor.parameters()).sum();
    let used: usize = uses(model).iter().map(|&(count, tensor)| count as usize * tensor.parameters()).sum();
    writeln!(out, "{} ({}), format version {VERSION}, {length} bytes", texts.name, texts.language)?;
    writeln!(
        out,
        "{:.1} M parameters stored, {:.1} M used: what layers share is used by each",
        stored as f64 / 1e6,
        used as f64 / 1e6,
    )?;
    writeln!(
        out,
        "{:.1} x smaller than {:.1} MB, the parameters used in fp32; {:.2} bits each",
        used as f64 * 4.0 / length.max(1) as f64,
        used as f64 * 4.0 / 1e6,
        length as f64 * 8.0 / used.max(1) as f64
    )?;
    let encoder = widths(model.encoder_blocks().map(|block| block.feed_forward.middle));
    let decoder = widths(model.decoder_blocks().map(|block| block.feed_forward.middle));
    let stacks = [("encoder", &config.encoder, encoder), ("decoder", &config.decoder, decoder)];
    for (name, stack, feed_forward) in stacks {
        writeln!(
            out,
            "{name}: {} blocks, width {}, {} heads of {}, feed-forward {} ({:?}), positions {:?}",
            stack.layers,
            stack.width,
            stack.heads,
            stack.head_width,
            feed_forward,
            stack.activation,
            stack.positions
        )?;
        if let Some(memory) = stack.memory {
            writeln!(out, "  memory of {} frames, {} of them ahead", memory.kernel, memory.look_ahead)?;
        }
        if name == "encoder" && model.merged_frames() > 1 {
            writeln!(out, "  frames merged: {}", merges(model))?;
        }
        if let Some(chunk) = stack.chunk {
            writeln!(
                out,
                "  chunks of {} frames, which see {} chunks before them",
                chunk.frames, chunk.left
            )?;
        }
    }
    let front = match config.frontend.kind {
        FrontendKind::Waveform => format!("{} convolutions in front", config.frontend.convolutions),
        FrontendKind::FilterBank(bank) => format!(
            "{} mel bands in front, {} frames of {} samples stacked every {}",
            bank.mels,
            bank.stacked,
            bank.frame_length,
            bank.row_samples()
        ),
    };
    writeln!(out, "{} tokens, {} Hz, {front}", config.vocabulary, config.frontend.sample_rate)?;
    writeln!(out, "\n{:<12} {:>11}", "section", "bytes")?;
    for section in model.sections() {
        writeln!(out, "{:<12} {:>11}", section.kind.to_string(), section.bytes.len())?;
    }
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for tensor in model.tensors().iter() {
        let kind = kinds.entry(stored_as(&tensor)).or_default();
        kind.tensors += 1;
        kind.parameters += tensor.parameters();
        kind.dense += density(&tensor) * tensor.parameters() as f64;
        for (sum, bytes) in kind.bytes.iter_mut().zip(tensor.part_bytes()) {
            *sum += bytes;
        }
    }
    writeln!(
        out,
        "\n{:<16} {:>11} {:>9} {:>9} {:>11} {:>8} {:>8}",
        "stored as", "values", "scales", "index", "parameters", "density", "tensors"
    )?;
    for (name, Kind { tensors, parameters, dense, bytes: [values, scales, index] }) in kinds {
        let density = percent(dense / parameters.max(1) as f64);
        writeln!(
            out,
            "{name:<16} {values:>11} {scales:>9} {index:>9} {parameters:>11} {density:>8} {tensors:>8}"
        )?;
    }
    Ok(())
}

/// The number that all blocks have, or that of each.
fn widths(of_blocks: impl Iterator<Item = usize>) -> String {
    let mut widths: Vec<String> = of_blocks.map(|width| width.to_string()).collect();
    if widths.iter().all(|width| Some(width) == widths.first()) {
        widths.truncate(1);
    }
    widths.join(", ")
}

/// The encoder blocks that merge frames, counted from one.
fn merges(model: &Model<'_>) -> String {
    let blocks = model.encoder_blocks().zip(1..).filter(|(block, _)| block.merge > 1);
    let merges = blocks.map(|(block, number)| format!("{} in front of block {number}", block.merge));
    merges.collect::<Vec<_>>().join(", ")
}

/// What the tensors of one kind add up to.
#[derive(Default)]
struct Kind {
    tensors: usize,
    parameters: usize,
    /// Parameters that are stored, those that blocks leave out not counted.
    dense: f64,
    /// Values, scales, index.
    bytes: [usize; 3],
}

fn tensors(model: &Model<'_>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:>5}  {:<16} {:>14} {:>8} {:>11}  name",
        "id", "stored as", "shape", "density", "bytes"
    )?;
    for (id, tensor) in model.tensors().iter().enumerate() {
        let shape = format!("{} x {}", tensor.outputs, tensor.inputs);
        let (kind, density, bytes) = (stored_as(&tensor), percent(density(&tensor)), tensor.stored_bytes());
        writeln!(out, "{id:>5}  {kind:<16} {shape:>14} {density:>8} {bytes:>11}  {}", tensor.name)?;
    }
    Ok(())
}

/// The kind of a tensor, with the shape of its blocks.
fn stored_as(tensor: &Tensor<'_>) -> String {
    match tensor.block {
        Some(block) => format!("{} {block}", tensor.kind),
        None => tensor.kind.to_string(),
    }
}

/// Stored blocks over all blocks of a sparse matrix; 1 for all others.
fn density(tensor: &Tensor<'_>) -> f64 {
    let index = match tensor.matrix() {
        Some(Matrix::SparseInt8(matrix)) => matrix.index(),
        Some(Matrix::SparseInt4(matrix)) => matrix.index(),
        _ => return 1.0,
    };
    let shape = index.shape();
    let all = tensor.outputs.div_ceil(shape.outputs()) * tensor.inputs.div_ceil(shape.inputs());
    index.blocks() as f64 / all as f64
}

fn percent(part: f64) -> String {
    if part == 1.0 { "-".into() } else { format!("{:.1} %", part * 100.0) }
}

/// Each tensor, and how many layers name it.
fn uses<'m>(model: &Model<'m>) -> Vec<(u32, Tensor<'m>)> {
    let mut uses: Vec<(u32, Tensor<'m>)> = model.tensors().iter().map(|tensor| (0, tensor)).collect();
    for layer in model.layers().iter() {
        for id in named(&layer) {
            if let Some((count, _)) = uses.get_mut(id as usize) {
                *count += 1;
            }
        }
    }
    uses
}

/// The tensors that a layer names, each once.
fn named(layer: &Layer<'_>) -> Vec<u32> {
    let mut named: Vec<u32> = layer.slots().map(|slot| slot.tensor).collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Bytes of each kind of layer. A tensor counts where it is first named, so that the parts add up to the whole.
fn layers(model: &Model<'_>, out: &mut impl Write) -> io::Result<()> {
    struct Part {
        kind: LayerKind,
        layers: usize,
        bytes: usize,
        shared: usize,
    }
    let mut users = vec![0_u32; model.tensors().len()];
    let mut parts: Vec<Part> = Vec::new();
    for layer in model.layers().iter() {
        if parts.last().is_none_or(|part| part.kind != layer.kind) {
            parts.push(Part { kind: layer.kind, layers: 0, bytes: 0, shared: 0 });
        }
        let Some(part) = parts.last_mut() else { continue };
        part.layers += 1;
        for id in named(&layer) {
            let bytes = model.tensors().get(id).map_or(0, |tensor| tensor.stored_bytes());
            let Some(count) = users.get_mut(id as usize) else { continue };
            *count += 1;
            *if *count == 1 { &mut part.bytes } else { &mut part.shared } += bytes;
        }
    }
    writeln!(out, "\n{:<15} {:>6} {:>11} {:>18}", "layers", "number", "bytes", "shared with others")?;
    for part in parts {
        let (kind, shared) =
            (part.kind.to_string(), if part.shared == 0 { "-".into() } else { part.shared.to_string() });
        writeln!(out, "{kind:<15} {:>6} {:>11} {shared:>18}", part.layers, part.bytes)?;
    }
    let shared: Vec<_> = uses(model).into_iter().filter(|(count, _)| *count > 1).collect();
    if shared.is_empty() {
        return writeln!(out, "\nno tensor is shared between layers");
    }
    writeln!(out, "\n{:>6}  shared tensor", "layers")?;
    for (count, tensor) in shared {
        writeln!(out, "{count:>6}  {}", tensor.name)?;
    }
    Ok(())
}
