//! A tiny random Llama in a GGUF file: two layers of 64 dimensions, one token per byte, 470 KB.
//!
//! llama-server loads it in a fraction of a second and really generates with it, nonsense though it is. The file is the
//! same on every machine: weights come from a fixed generator, so its digest can be relied on.

use std::fs;
use std::io;
use std::path::Path;

/// How large a model is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Numbers that stand for a token: a multiple of twice the heads.
    pub dimensions: u32,
    /// Layers.
    pub layers: u32,
    /// Heads of attention in each.
    pub heads: u32,
    /// Width of each layer's inner network.
    pub feed_forward: u32,
}

const TINY: Shape = Shape { dimensions: 64, layers: 2, heads: 4, feed_forward: 128 };
const CONTEXT: u32 = 512;
/// `<unk>`, `<s>`, `</s>` and the 256 bytes.
const VOCABULARY: u32 = 3 + 256;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Standard deviation of the weights.
const SPREAD: f32 = 0.05;

const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const TENSOR_F32: u32 = 0;

const TOKEN_UNKNOWN: i32 = 2;
const TOKEN_CONTROL: i32 = 3;
const TOKEN_BYTE: i32 = 6;

/// Writes the model to a file.
pub fn write(path: &Path) -> io::Result<()> {
    fs::write(path, tiny_llama())
}

/// The tiny model's bytes.
pub fn tiny_llama() -> Vec<u8> {
    random_llama(TINY)
}

/// The bytes of a model of that size.
pub fn random_llama(shape: Shape) -> Vec<u8> {
    let Shape { dimensions, layers, heads, feed_forward } = shape;
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", "llama");
    metadata.text("general.name", "tiny-random");
    metadata.number("general.file_type", 0);
    metadata.number("llama.context_length", CONTEXT);
    metadata.number("llama.embedding_length", dimensions);
    metadata.number("llama.block_count", layers);
    metadata.number("llama.feed_forward_length", feed_forward);
    metadata.number("llama.attention.head_count", heads);
    metadata.number("llama.attention.head_count_kv", heads);
    metadata.real("llama.attention.layer_norm_rms_epsilon", 1e-5);
    metadata.number("llama.rope.dimension_count", dimensions / heads);
    metadata.number("llama.vocab_size", VOCABULARY);
    vocabulary(&mut metadata);

    let tensors = tensors(shape);
    let mut file = Vec::with_capacity(512 * 1024);
    file.extend(b"GGUF");
    file.extend(VERSION.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(metadata.count.to_le_bytes());
    file.extend(metadata.bytes);
    let mut offset = 0_usize;
    for tensor in &tensors {
        put_text(&mut file, &tensor.name);
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        for &size in &tensor.shape {
            file.extend(u64::from(size).to_le_bytes());
        }
        file.extend(TENSOR_F32.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += (tensor.values.len() * size_of::<f32>()).next_multiple_of(ALIGNMENT);
    }
    for tensor in tensors {
        pad(&mut file);
        file.extend(tensor.values.into_iter().flat_map(f32::to_le_bytes));
    }
    pad(&mut file);
    file
}

fn pad(file: &mut Vec<u8>) {
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.bytes());
}

/// Keys and typed values, as they stand in the file.
#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, TYPE_STRING);
        put_text(&mut self.bytes, value);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, TYPE_U32);
        self.bytes.extend(value.to_le_bytes());
    }

    fn real(&mut self, key: &str, value: f32) {
        self.key(key, TYPE_F32);
        self.bytes.extend(value.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, TYPE_ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }
}

fn vocabulary(metadata: &mut Metadata) {
    let special = [("<unk>", TOKEN_UNKNOWN), ("<s>", TOKEN_CONTROL), ("</s>", TOKEN_CONTROL)];
    let special = special.map(|(text, kind)| (text.to_owned(), kind));
    let bytes = (0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), TOKEN_BYTE));
    let tokens: Vec<(String, i32)> = special.into_iter().chain(bytes).collect();
    metadata.text("tokenizer.ggml.model", "llama");
    metadata.array("tokenizer.ggml.tokens", TYPE_STRING, tokens.len());
    for (text, _) in &tokens {
        put_text(&mut metadata.bytes, text);
    }
    metadata.array("tokenizer.ggml.scores", TYPE_F32, tokens.len());
    metadata.bytes.extend(tokens.iter().flat_map(|_| 0_f32.to_le_bytes()));
    metadata.array("tokenizer.ggml.token_type", TYPE_I32, tokens.len());
    metadata.bytes.extend(tokens.iter().flat_map(|(_, kind)| kind.to_le_bytes()));
    metadata.number("tokenizer.ggml.bos_token_id", 1);
    metadata.number("tokenizer.ggml.eos_token_id", 2);
    metadata.number("tokenizer.ggml.unknown_token_id", 0);
}

struct Tensor {
    name: String,
    /// Fastest dimension first, as GGUF has it.
    shape: Vec<u32>,
    values: Vec<f32>,
}

fn tensors(shape: Shape) -> Vec<Tensor> {
    let Shape { dimensions, layers, feed_forward, .. } = shape;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut tensors = vec![matrix(&mut noise, "token_embd", dimensions, VOCABULARY)];
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        tensors.push(ones(&name("attn_norm"), dimensions));
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            tensors.push(matrix(&mut noise, &name(part), dimensions, dimensions));
        }
        tensors.push(ones(&name("ffn_norm"), dimensions));
        tensors.push(matrix(&mut noise, &name("ffn_gate"), dimensions, feed_forward));
        tensors.push(matrix(&mut noise, &name("ffn_up"), dimensions, feed_forward));
        tensors.push(matrix(&mut noise, &name("ffn_down"), feed_forward, dimensions));
    }
    tensors.push(ones("output_norm", dimensions));
    tensors.push(matrix(&mut noise, "output", dimensions, VOCABULARY));
    tensors
}

fn ones(name: &str, dimensions: u32) -> Tensor {
    let values = vec![1.0; dimensions as usize];
    Tensor { name: format!("{name}.weight"), shape: vec![dimensions], values }
}

fn matrix(noise: &mut Noise, name: &str, columns: u32, rows: u32) -> Tensor {
    let values = (0..columns * rows).map(|_| noise.next() * SPREAD).collect();
    Tensor { name: format!("{name}.weight"), shape: vec![columns, rows], values }
}

/// xorshift64*: even values of mean 0 and deviation 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        let even = bits as f32 / (1_u64 << 24) as f32;
        (even * 2.0 - 1.0) * 3.0_f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_version_3_and_counts_what_follows() {
        let file = tiny_llama();
        let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(&file[..4], b"GGUF");
        assert_eq!(file[4..8], VERSION.to_le_bytes());
        assert_eq!(number(8), 3 + 9 * u64::from(TINY.layers));
        assert_eq!(number(16), 19);
        assert_eq!(number(24), "general.architecture".len() as u64);
    }

    #[test]
    fn it_is_small_whole_and_the_same_each_time() {
        let file = tiny_llama();
        assert!((400_000..500_000).contains(&file.len()), "{}", file.len());
        assert_eq!(file.len() % ALIGNMENT, 0);
        assert_eq!(file, tiny_llama());
    }

    #[test]
    fn weights_have_the_spread_of_a_fresh_model() {
        let mut noise = Noise(1);
        let values: Vec<f32> = (0..10_000).map(|_| noise.next()).collect();
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
