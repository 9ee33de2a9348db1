//! `kinglet inspect`: what is in a model file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use kinglet_model_format::{FrontendKind, LayerKind, Model, VERSION};

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
            writeln!(out, "\n{:>5}  {:<10} {:>14} {:>11}  name", "id", "stored as", "shape", "bytes")?;
            for (id, tensor) in model.tensors().iter().enumerate() {
                let shape = format!("{} x {}", tensor.outputs, tensor.inputs);
                let (kind, bytes) = (tensor.kind.to_string(), tensor.stored_bytes());
                writeln!(out, "{id:>5}  {kind:<10} {shape:>14} {bytes:>11}  {}", tensor.name)?;
            }
        }
        Ok(())
    }
}

fn overview(model: &Model<'_>, length: usize, out: &mut impl Write) -> io::Result<()> {
    let (texts, config) = (model.texts(), model.config());
    let parameters: usize = model.tensors().iter().map(|tensor| tensor.parameters()).sum();
    writeln!(out, "{} ({}), format version {VERSION}, {length} bytes", texts.name, texts.language)?;
    writeln!(
        out,
        "{:.1} M parameters stored, {:.2} bytes each, tables and vocabulary included",
        parameters as f64 / 1e6,
        length as f64 / parameters.max(1) as f64
    )?;
    for (name, stack) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
        writeln!(
            out,
            "{name}: {} blocks, width {}, {} heads of {}, feed-forward {} ({:?}), positions {:?}",
            stack.layers,
            stack.width,
            stack.heads,
            stack.head_width,
            stack.feed_forward,
            stack.activation,
            stack.positions
        )?;
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
    let mut kinds: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for tensor in model.tensors().iter() {
        let entry = kinds.entry(tensor.kind.to_string()).or_default();
        *entry = (entry.0 + 1, entry.1 + tensor.parameters(), entry.2 + tensor.stored_bytes());
    }
    writeln!(out, "\n{:<12} {:>11} {:>11} {:>8}", "stored as", "bytes", "parameters", "tensors")?;
    for (kind, (count, parameters, bytes)) in kinds {
        writeln!(out, "{kind:<12} {bytes:>11} {parameters:>11} {count:>8}")?;
    }
    Ok(())
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
        let mut named: Vec<u32> = layer.slots().map(|slot| slot.tensor).collect();
        named.sort_unstable();
        named.dedup();
        if parts.last().is_none_or(|part| part.kind != layer.kind) {
            parts.push(Part { kind: layer.kind, layers: 0, bytes: 0, shared: 0 });
        }
        let Some(part) = parts.last_mut() else { continue };
        part.layers += 1;
        for id in named {
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
    let shared: Vec<_> = users.iter().zip(model.tensors().iter()).filter(|(count, _)| **count > 1).collect();
    if shared.is_empty() {
        return writeln!(out, "\nno tensor is shared between layers");
    }
    writeln!(out, "\n{:>6}  shared tensor", "layers")?;
    for (count, tensor) in shared {
        writeln!(out, "{count:>6}  {}", tensor.name)?;
    }
    Ok(())
}
