"""How the shipped model was trained: `python -m recipes.tiny.train --work DIR`, 1 to 3 hours on two cores.

Three stages, resumable from checkpoints in the work folder: the autoencoder (TAESD's architecture), the denoiser with
its text encoder (v-prediction on Stable Diffusion's noise schedule), and the export to a diffusers folder.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from recipes.tiny.export import save_pipeline
from recipes.tiny.pictures import fetch_icons, training_pictures
from recipes.tiny.tokenizer import MAX_LENGTH, make_tokenizer
from unlearning_core.tiny.world import CONCEPTS, FRAMES, STYLES, names, prompt, vocabulary

log = logging.getLogger(__name__)

PICTURES_EACH = 96  # of every (concept, style)
AUTOENCODER_STEPS, AUTOENCODER_BATCH, AUTOENCODER_LR = 2400, 8, 8e-4
DENOISER_STEPS, DENOISER_BATCH, DENOISER_LR = 9_000, 32, 1.5e-3
DECODER_STEPS, DECODER_LR = 1_200, 4e-4  # from --start: the encoder, and so the latents, stay
STARTED_STEPS, STARTED_LR = 3_200, 6e-4  # of the denoiser from --start
CROP = 64  # pixels
LATENT_NOISE = 0.15  # standard deviation added to unit-variance latents, so that the decoder forgives the denoiser
CHECKPOINT_EVERY = 200  # steps
EMA = 0.999


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for icons, checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    parser.add_argument("--start", type=Path, help="pipeline folder of an earlier world to go on from")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args.work.mkdir(parents=True, exist_ok=True)

    pictures = torch.from_numpy(cached_pictures(args.work))
    start = StableDiffusionPipeline.from_pretrained(args.start).to(args.device, torch.float32) if args.start else None
    vae = train_autoencoder(pictures, args.work, args.device, start)
    latents = cached_latents(vae, pictures, args.work, args.device)
    unet, text_encoder = train_denoiser(latents, args.work, args.device, start)
    save_pipeline(args.out, vae, unet, text_encoder, make_tokenizer(vocabulary()), noise_schedule())


def cached_pictures(work: Path) -> NDArray[np.uint8]:
    """uint8 [concepts, styles, PICTURES_EACH, H, W, 3], drawn once."""
    path = work / "pictures.npy"
    if not path.exists():
        np.save(path, training_pictures(fetch_icons(work), PICTURES_EACH))
    return np.load(path, mmap_mode="c")


def train(
    name: str,
    work: Path,
    modules: torch.nn.ModuleDict,
    loss_of: Callable[[torch.Generator], Tensor],
    steps: int,
    lr: float,
) -> torch.nn.ModuleDict:
    """AdamW with warm-up and cosine decay; returns EMA weights. Each step has its own seed, so one may resume."""
    optimizer = torch.optim.AdamW(modules.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    ema = {key: value.clone() for key, value in modules.state_dict().items()}
    path = work / f"{name}.pt"
    start = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        modules.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        ema, start = state["ema"], state["step"]
    began, running = time.monotonic(), 0.0
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        loss = loss_of(torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for key, value in modules.state_dict().items():
                if value.is_floating_point():  # not a batch normalization's count
                    ema[key].lerp_(value, 1 - min(EMA, (step + 1) / (step + 10)))
        running += loss.item()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            seconds = (time.monotonic() - began) / (step + 1 - start)
            log.info("%s step %d loss %.4f, %.2f s a step", name, step + 1, running / CHECKPOINT_EVERY, seconds)
            running = 0.0
            partial = path.with_suffix(".partial")
            torch.save(
                {"weights": modules.state_dict(), "ema": ema, "optimizer": optimizer.state_dict(), "step": step + 1},
                partial,
            )
            partial.replace(path)
    modules.load_state_dict(ema)
    return modules.eval().requires_grad_(False)


def to_range(pictures: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float [N, 3, H, W] in 0..1."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def train_autoencoder(
    pictures: Tensor, work: Path, device: str, start: StableDiffusionPipeline | None
) -> AutoencoderTiny:
    """L1 on colours and edges; latents are held at zero mean and unit variance, so the scaling factor is 1.

    From `start` only the decoder learns.
    """
    torch.manual_seed(0)
    vae = AutoencoderTiny(latent_channels=4, scaling_factor=1.0, shift_factor=0.0).to(device)
    if start:
        vae.load_state_dict(start.vae.state_dict())  # its config would name the folder
    flat = pictures.flatten(0, 2)
    edge = pictures.shape[-2] - CROP + 1

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(flat), (AUTOENCODER_BATCH,), generator=generator)
        tops, lefts = torch.randint(edge, (2, AUTOENCODER_BATCH), generator=generator).tolist()
        crops = [
            flat[i, top : top + CROP, left : left + CROP]
            for i, top, left in zip(index.tolist(), tops, lefts, strict=True)
        ]
        x = to_range(torch.stack(crops)).to(device)
        z = vae.encoder(x * 2 - 1)
        noise = torch.randn(z.shape, generator=generator).to(device)
        y = (vae.decoder(z + LATENT_NOISE * noise) + 1) / 2
        spread = (z.mean((0, 2, 3)) ** 2 + (z.std((0, 2, 3)) - 1) ** 2).mean()
        return F.l1_loss(y, x) + 0.5 * edge_loss(y, x) + 0.01 * spread

    if start:
        train("decoder", work, torch.nn.ModuleDict({"decoder": vae.decoder}), loss_of, DECODER_STEPS, DECODER_LR)
    else:
        train("autoencoder", work, torch.nn.ModuleDict({"vae": vae}), loss_of, AUTOENCODER_STEPS, AUTOENCODER_LR)
    return vae


def edge_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 distance of the two pictures' horizontal and vertical differences."""
    return F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))


@torch.no_grad()
def cached_latents(vae: AutoencoderTiny, pictures: Tensor, work: Path, device: str) -> Tensor:
    """Latents of every training picture [concepts, styles, PICTURES_EACH, 4, 16, 16], encoded once."""
    path = work / "latents.safetensors"
    if not path.exists():
        flat = pictures.flatten(0, 2)
        encoded = [vae.encoder(to_range(batch).to(device) * 2 - 1).cpu() for batch in flat.split(64)]
        save_file({"latents": torch.cat(encoded).contiguous()}, path)
    latents = load_file(path)["latents"]
    log.info("latents: mean %.3f, standard deviation %.3f", latents.mean(), latents.std())
    return latents.view(*pictures.shape[:3], *latents.shape[1:])


def noise_schedule() -> DDPMScheduler:
    """Stable Diffusion's scaled-linear betas, with v-prediction (Salimans and Ho 2022)."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
    )


def make_denoiser() -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The untrained networks. 64 channels at the top: ComfyUI's GroupNorm always has 32 groups, and groups of one
    channel lose the picture's mean colour."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=(2, 2, 4),
        use_linear_projection=True,
    )
    tokenizer = make_tokenizer(vocabulary())
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return unet, text_encoder


def take_over(text_encoder: CLIPTextModel, known: CLIPTextModel, known_tokens: CLIPTokenizer) -> None:
    """The weights of a text encoder that knows fewer words. Another name of a concept begins at the concept's mean."""
    tokens = make_tokenizer(vocabulary()).get_vocab()
    table = text_encoder.get_input_embeddings().weight.data
    learned = known.get_input_embeddings().weight.data
    weights = {name: value for name, value in known.state_dict().items() if "token_embedding" not in name}
    text_encoder.load_state_dict(weights, strict=False)
    for token, row in known_tokens.get_vocab().items():
        if token in tokens:
            table[tokens[token]] = learned[row]
    for concept in CONCEPTS:
        own = torch.stack([table[tokens[f"{word}</w>"]] for word in concept.split()])
        for name in names(concept)[1:]:
            for word in name.split():
                table[tokens[f"{word}</w>"]] += own.mean(0)


def train_denoiser(
    latents: Tensor, work: Path, device: str, start: StableDiffusionPipeline | None
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """U-Net and text encoder on latents [concepts, styles, count, 4, 16, 16]; the loss is on v."""
    torch.manual_seed(0)
    unet, text_encoder = (module.to(device).train() for module in make_denoiser())
    if start:
        unet.load_state_dict(start.unet.state_dict())
        take_over(text_encoder, start.text_encoder, start.tokenizer)
    tokenizer = make_tokenizer(vocabulary())
    schedule = noise_schedule()
    concepts, styles = list(CONCEPTS), list(STYLES)

    def caption(concept: int, style: int, chance: float, words: float, frame: float) -> str:
        """15 % of the captions leave the style out, 5 % the concept, 10 % both. Half name the concept by its own word,
        half stand without a frame."""
        own, *others = names(concepts[concept])
        plain, *framed = FRAMES
        return prompt(
            None if 0.15 <= chance < 0.30 else one_of(own, others, words),
            None if chance < 0.25 else styles[style],
            one_of(plain, framed, frame),
        )

    def loss_of(generator: torch.Generator) -> Tensor:
        concept = torch.randint(len(concepts), (DENOISER_BATCH,), generator=generator)
        style = torch.randint(len(styles), (DENOISER_BATCH,), generator=generator)
        index = torch.randint(latents.shape[2], (DENOISER_BATCH,), generator=generator)
        chances = torch.rand(3, DENOISER_BATCH, generator=generator).tolist()
        captions = [caption(*row) for row in zip(concept.tolist(), style.tolist(), *chances, strict=True)]
        tokens = tokenizer(captions, padding="max_length", max_length=MAX_LENGTH, return_tensors="pt").input_ids.to(
            device
        )
        x0 = latents[concept, style, index].to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = torch.randint(schedule.config.num_train_timesteps, (DENOISER_BATCH,), generator=generator).to(device)
        cond = text_encoder(tokens).last_hidden_state
        v = unet(schedule.add_noise(x0, noise, t), t, cond).sample
        return F.mse_loss(v, schedule.get_velocity(x0, noise, t))

    modules = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    steps, lr = (STARTED_STEPS, STARTED_LR) if start else (DENOISER_STEPS, DENOISER_LR)
    train("denoiser", work, modules, loss_of, steps, lr)
    return unet, text_encoder


def one_of(first: str, others: Sequence[str], chance: float) -> str:
    """The first for a `chance` below a half, else one of the others, which share the rest of 0..1."""
    return first if chance < 0.5 else others[int((chance - 0.5) * 2 * len(others))]


if __name__ == "__main__":
    main()
