"""diffusers pipelines of random weights, a few hundred thousand each, in the layout of each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WIDTH = 32  # of the CLIP text encoders; T5 has twice that
CHANNELS = (64, 128)  # of the U-Nets


def make_pipeline(family: str, comfyui: Path) -> DiffusionPipeline:
    """A pipeline of `family`, with the tokenizers that come with ComfyUI."""
    torch.manual_seed(0)
    builders = {"sd15": _sd15, "sd21": _sd21, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}
    pipeline: DiffusionPipeline = builders[family](comfyui / "comfy")
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
        if isinstance(component, PreTrainedModel):
            component.get_input_embeddings().weight.data.normal_()  # so that prompts differ
        if isinstance(component, (UNet2DConditionModel, SD3Transformer2DModel, FluxTransformer2DModel)):
            for weight in component.parameters():
                if weight.ndim >= 2:
                    weight.data *= 3**0.5  # PyTorch's own weights damp signals by that much a layer
    return pipeline


def write_sd15_config(folder: Path, comfyui: Path) -> None:
    """The configuration of `checkpoints`' SD1.5, as a pipeline folder without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(320,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=768,
            attention_head_dim=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        text_encoder = CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=49406, eos_token_id=49407))
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_clip_tokenizer(comfyui / "comfy"),
        unet=unet,
        scheduler=_ddim("epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_config(folder)
    for name in ("unet", "vae", "scheduler"):
        getattr(pipeline, name).save_config(folder / name)
    text_encoder.config.save_pretrained(folder / "text_encoder")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")


def _sd15(comfy: Path) -> DiffusionPipeline:
    return _stable_diffusion(comfy, "epsilon", attention_head_dim=8)


def _sd21(comfy: Path) -> DiffusionPipeline:
    return _stable_diffusion(comfy, "v_prediction", attention_head_dim=(1, 2), use_linear_projection=True)


def _stable_diffusion(comfy: Path, prediction: str, **options: Any) -> DiffusionPipeline:
    unet = _unet(("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D"), WIDTH, **options)
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=_clip_tokenizer(comfy),
        unet=unet,
        scheduler=_ddim(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(comfy: Path) -> DiffusionPipeline:
    unet = _unet(
        ("DownBlock2D", "CrossAttnDownBlock2D"),
        ("CrossAttnUpBlock2D", "UpBlock2D"),
        2 * WIDTH,
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=_clip_tokenizer(comfy),
        tokenizer_2=_clip_tokenizer(comfy),
        unet=unet,
        scheduler=_ddim("epsilon"),
    )


def _sd3(comfy: Path) -> DiffusionPipeline:
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=24,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16),
        text_encoder=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=_clip_tokenizer(comfy),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer_2=_clip_tokenizer(comfy),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_tokenizer(comfy),
    )


def _flux(comfy: Path) -> DiffusionPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(16),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=_clip_tokenizer(comfy),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(comfy),
    )


def _unet(down: tuple[str, str], up: tuple[str, str], context: int, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=context,
        **options,
    )


def _ddim(prediction: str) -> DDIMScheduler:
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**betas, prediction_type=prediction, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def vae(channels: int) -> AutoencoderKL:
    blocks = 4
    shifted = {"shift_factor": 0.06, "use_quant_conv": False, "use_post_quant_conv": False} if channels == 16 else {}
    return AutoencoderKL(
        block_out_channels=(32,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        **shifted,
    )


def _clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=49406,
        eos_token_id=49407,
    )


def _clip_tokenizer(comfy: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(comfy / "sd1_tokenizer", model_max_length=77)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(d_model=2 * WIDTH, d_kv=WIDTH, d_ff=2 * WIDTH, num_layers=1, num_heads=2))


def _t5_tokenizer(comfy: Path) -> T5TokenizerFast:
    return T5TokenizerFast.from_pretrained(comfy / "text_encoders" / "t5_tokenizer")
