"""Small diffusers pipelines over the weights of ComfyUI's networks of the same families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import diffusers
import pipelines
import torch
from diffusers.loaders import single_file_utils
from diffusers.models.transformers.transformer_chroma import ChromaCombinedTimestepTextProjEmbeddings
from families import Family, random_model, read_families
from standins import Encoder, Tokenizer
from torch import Tensor

Weights = dict[str, Tensor]
WIDTH = 64  # of the text


class Counterpart(NamedTuple):
    """A family in diffusers."""

    family: str  # in `families`
    transformer: Callable[[], Any]
    pipeline: Callable[[Any], Any]  # of its transformer
    convert: Callable[[Any, Weights], Weights]  # the configuration and weights of ComfyUI's network to diffusers'
    conditioning: Callable[[Any], list[Any]]  # what `encode` gives as ComfyUI's [tokens [1, T, D], extras]
    changes: Mapping[str, Any] = {}  # of the family's configuration
    side: int = 64  # pixels
    unknown: str = "(?!)"  # a pattern of the names in diffusers' LoRA files that ComfyUI's loader does not know
    named_alike: bool = True  # whether ComfyUI's host has the names that its loader knows


def by_table(table: Callable[..., Mapping[str, Any]]) -> Callable[[Any, Weights], Weights]:
    """By one of ComfyUI's tables: diffusers' name to ComfyUI's, with the part of it and its order."""

    def convert(config: Any, weights: Weights) -> Weights:
        found = {}
        for name, target in table(config).items():
            key, part, reorder = (*([target] if isinstance(target, str) else target), None, None)[:3]
            if key in weights:
                weight = weights[key].narrow(*part) if part else weights[key]
                found[name] = reorder(weight) if reorder else weight
        return found

    return convert


def _comfy_table(name: str) -> Callable[[Any, Weights], Weights]:
    def table(config: Any) -> Mapping[str, Any]:
        import comfy.utils

        found: Mapping[str, Any] = getattr(comfy.utils, name)(config)
        return found

    return by_table(table)


def _as_it_is(config: Any, weights: Weights) -> Weights:
    return weights


def _z_image(config: Any, weights: Weights) -> Weights:
    """A timestep embedding that is narrower in a small ComfyUI network has zeros beside it."""
    converted = _comfy_table("z_image_to_diffusers")(config, weights)
    for name, axis in (("t_embedder.mlp.0.weight", 0), ("t_embedder.mlp.0.bias", 0), ("t_embedder.mlp.2.weight", 1)):
        if name in converted:
            shape = [*converted[name].shape]
            shape[axis] = 1024 - shape[axis]
            converted[name] = torch.cat([converted[name], torch.zeros(shape)], axis)
    return converted


def _flux2(config: Any, weights: Weights) -> Weights:
    converted: Weights = single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers(
        {name.replace("_norm.weight", "_norm.scale"): weight for name, weight in weights.items()}
    )
    return converted


def _chroma(config: Any, weights: Weights) -> Weights:
    blocks = _comfy_table("flux_to_diffusers")(config, weights)
    guidance = {name: weight for name, weight in weights.items() if name.startswith("distilled_guidance_layer")}
    return blocks | {
        name.replace("in_layer", "linear_1").replace("out_layer", "linear_2"): weight
        for name, weight in guidance.items()
    }


def _lumina2(config: Any, weights: Weights) -> Weights:
    """diffusers' own converter knows the sizes of the full model alone."""
    fused = {name: weight for name, weight in weights.items() if ".qkv." in name}
    rest = {name: weight for name, weight in weights.items() if name not in fused}
    converted: Weights = single_file_utils.convert_lumina2_to_diffusers(rest)
    head = config["dim"] // config["n_heads"]
    sizes = [head * config[heads] for heads in ("n_heads", "n_kv_heads", "n_kv_heads")]
    for name, weight in fused.items():
        for part, own in zip(("to_q", "to_k", "to_v"), weight.split(sizes), strict=True):
            converted[name.replace("attention", "attn").replace("qkv", part)] = own
    return converted


def _tokens(text: Any) -> list[Any]:
    """[tokens, ...] as they are."""
    return [text[0], {"pooled_output": None}]


def _attended(text: Any) -> list[Any]:
    """The tokens of [tokens, mask, ...] that the mask lets through: ComfyUI does not pad."""
    return [text[0][:, text[1][0].bool()], {}]


def flow(shift: float) -> Any:
    """A scheduler of a shift that does not depend on the size."""
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)


def dynamic(shift: float) -> Any:
    """One of a shift that does, and is this at most."""
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=shift)


def _pixart(name: str, micro: bool) -> Counterpart:
    return Counterpart(
        name,
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=36,
            num_layers=2,
            cross_attention_dim=144,
            caption_channels=WIDTH,
            sample_size=128 if micro else 64,
            use_additional_conditions=micro,
        ),
        lambda transformer: (diffusers.PixArtAlphaPipeline if micro else diffusers.PixArtSigmaPipeline)(
            Tokenizer(),
            Encoder(WIDTH),
            pipelines.vae(4),
            transformer,
            diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
        ),
        _comfy_table("pixart_to_diffusers"),
        _attended,
        {} if micro else {"pe_interpolation": 1, "input_size": 64},
        side=1024 if micro else 512,  # at others than their own the two place the patches differently
    )


def _flux2_pipeline(kind: Any, transformer: Any) -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = diffusers.AutoencoderKLFlux2(block_out_channels=(32,) * 4, layers_per_block=1, **blocks)
    return kind(dynamic(2.02), vae, Encoder(WIDTH // 2), Tokenizer(), transformer)


def _flux2_transformer(guidance: bool) -> Any:
    return diffusers.Flux2Transformer2DModel(
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH // 2,
        guidance_embeds=guidance,
    )


def _qwen_pipeline(transformer: Any) -> Any:
    vae = diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return diffusers.QwenImagePipeline(dynamic(1.15), vae, Encoder(WIDTH), Tokenizer(), transformer)


def _chroma_pipeline(transformer: Any) -> Any:
    # ComfyUI numbers the modulations of the last layer as in the full model.
    full = ChromaCombinedTimestepTextProjEmbeddings(transformer.config.approximator_num_channels // 4, 344)
    transformer.time_text_embed.mod_proj[-2:] = full.mod_proj[-2:]
    # diffusers lets the network see padding in part, ComfyUI not at all.
    tokenizer = Tokenizer(masks=False)
    return diffusers.ChromaPipeline(dynamic(1.15), pipelines.vae(16), Encoder(WIDTH), tokenizer, transformer)


def _hidream_pipeline(transformer: Any) -> Any:
    half = WIDTH // 2
    parts = [(Encoder(half, pooled=True), Tokenizer()) for _ in range(2)] + [
        (Encoder(WIDTH), Tokenizer()) for _ in "TL"
    ]
    encoders = [part for pair in parts for part in pair]
    return diffusers.HiDreamImagePipeline(flow(1.0), pipelines.vae(16), *encoders, transformer)


COUNTERPARTS = {
    "z_image": Counterpart(
        "z_image",
        lambda: diffusers.ZImageTransformer2DModel(
            dim=384, n_layers=1, n_heads=3, n_kv_heads=3, cap_feat_dim=WIDTH, axes_lens=[1536, 512, 512]
        ),
        lambda transformer: diffusers.ZImagePipeline(
            flow(3.0), pipelines.vae(16), Encoder(WIDTH), Tokenizer(), transformer
        ),
        _z_image,
        lambda text: [text[0][0][None], {}],
        {"dim": 384, "n_layers": 1, "n_heads": 3, "n_kv_heads": 3},  # the two round the width of others differently
    ),
    "qwen_image": Counterpart(
        "qwen_image",
        lambda: diffusers.QwenImageTransformer2DModel(num_layers=2, num_attention_heads=2, joint_attention_dim=WIDTH),
        _qwen_pipeline,
        _as_it_is,
        _tokens,
    ),
    "flux2_dev": Counterpart(
        "flux2_dev",
        lambda: _flux2_transformer(True),
        lambda transformer: _flux2_pipeline(diffusers.Flux2Pipeline, transformer),
        _flux2,
        _tokens,
        {"context_in_dim": 3 * WIDTH // 2},
        unknown="_stream_modulation|time_(guidance|text)_embed",
    ),
    "flux2_klein": Counterpart(
        "flux2_klein",
        lambda: _flux2_transformer(False),
        lambda transformer: _flux2_pipeline(diffusers.Flux2KleinPipeline, transformer),
        _flux2,
        _tokens,
        {"context_in_dim": 3 * WIDTH // 2},
        unknown="_stream_modulation|time_(guidance|text)_embed",
    ),
    "chroma": Counterpart(
        "chroma",
        lambda: diffusers.ChromaTransformer2DModel(
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            approximator_hidden_dim=64,
            approximator_layers=2,
        ),
        _chroma_pipeline,
        _chroma,
        _tokens,
        unknown="distilled_guidance_layer",
    ),
    "lumina2": Counterpart(
        "lumina2",
        lambda: diffusers.Lumina2Transformer2DModel(
            hidden_size=192,
            num_layers=2,
            num_attention_heads=2,
            num_kv_heads=1,
            cap_feat_dim=WIDTH,
        ),
        lambda transformer: diffusers.Lumina2Pipeline(
            transformer, flow(6.0), pipelines.vae(16), Encoder(WIDTH), Tokenizer()
        ),
        _lumina2,
        _attended,
        {"ffn_dim_multiplier": 4.0},
        unknown="",  # all
        named_alike=False,
    ),
    "pixart_sigma": _pixart("pixart_sigma", micro=False),
    "pixart_alpha": _pixart("pixart_alpha", micro=True),
    "auraflow": Counterpart(
        "auraflow",
        lambda: diffusers.AuraFlowTransformer2DModel(
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            num_attention_heads=2,
            attention_head_dim=64,
            joint_attention_dim=WIDTH,
            caption_projection_dim=128,
        ),
        lambda transformer: diffusers.AuraFlowPipeline(
            Tokenizer(), Encoder(WIDTH), pipelines.vae(4), transformer, flow(1.73)
        ),
        _comfy_table("auraflow_to_diffusers"),
        _tokens,
    ),
    "hidream": Counterpart(
        "hidream",
        lambda: diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=1,
            caption_channels=[WIDTH, WIDTH],
            text_emb_dim=WIDTH,
            axes_dims_rope=(64, 32, 32),
            llama_layers=[0, 1],
        ),
        _hidream_pipeline,
        _as_it_is,
        lambda text: [text[0], {"conditioning_llama3": text[2].movedim(0, 1), "pooled_output": text[4]}],
    ),
}


def comfy_model(counterpart: Counterpart) -> Any:
    """The family's MODEL in ComfyUI."""
    family: Family = read_families()[counterpart.family]
    return random_model(family._replace(config={**family.config, **counterpart.changes}))


def make_pipeline(counterpart: Counterpart, model: Any) -> Any:
    """The family's pipeline with the weights of a MODEL. Raises RuntimeError when the two have not the same weights."""
    transformer = counterpart.transformer()
    network = model.model.diffusion_model
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    converted = counterpart.convert(model.model.model_config.unet_config, weights)
    own = transformer.state_dict()
    known = {name: weight.view(own[name].shape) for name, weight in converted.items() if name in own}
    transformer.load_state_dict(known)
    return counterpart.pipeline(transformer)
