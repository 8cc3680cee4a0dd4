"""Small random-weight members of each family: (supported_models class, unet_config, conditioning, side)."""

import hashlib

import torch

U = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_heads": -1,
    "num_head_channels": 64,
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
SD15 = {
    **U,
    "channel_mult": (1, 1),
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "context_dim": 64,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
}
XL = {
    **U,
    "channel_mult": (1, 1, 1),
    "num_res_blocks": [2, 2, 2],
    "context_dim": 64,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "hidden_size": 256,
    "num_heads": 2,
    "axes_dim": [16, 56, 56],
    "mlp_ratio": 4.0,
    "theta": 10000,
    "qkv_bias": True,
    "txt_ids_dims": [],
    "context_in_dim": 64,
    "vec_in_dim": 64,
    "depth": 1,
    "depth_single_blocks": 1,
    "guidance_embed": True,
    "yak_mlp": False,
    "txt_norm": False,
}
FLUX2 = {
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "hidden_size": 256,
    "num_heads": 2,
    "axes_dim": [32, 32, 32, 32],
    "mlp_ratio": 3.0,
    "theta": 2000,
    "global_modulation": True,
    "mlp_silu_act": True,
    "qkv_bias": False,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
    "context_in_dim": 64,
    "vec_in_dim": None,
    "depth": 1,
    "depth_single_blocks": 1,
    "guidance_embed": True,
    "yak_mlp": False,
    "txt_norm": False,
}
CHROMA = {
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "context_in_dim": 64,
    "hidden_size": 256,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "in_dim": 64,
    "out_dim": 256,
    "hidden_dim": 64,
    "n_layers": 2,
    "txt_ids_dims": [],
    "vec_in_dim": None,
}
RADIANCE = {
    **CHROMA,
    "image_model": "chroma_radiance",
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 16,
    "nerf_hidden_size": 32,
    "nerf_mlp_ratio": 2,
    "nerf_depth": 1,
    "nerf_max_freqs": 4,
    "nerf_tile_size": 512,
    "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32,
    "use_x0": False,
    "use_sequential_txt_ids": False,
}
LUMINA2 = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 192,
    "cap_feat_dim": 64,
    "n_layers": 2,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 1,
    "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 1.0,
}
ZIMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 256,
    "cap_feat_dim": 64,
    "n_layers": 2,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 2,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
HIDREAM = {
    "image_model": "hidream",
    "attention_head_dim": 128,
    "axes_dims_rope": [64, 32, 32],
    "caption_channels": [64, 64],
    "max_resolution": [128, 128],
    "in_channels": 16,
    "llama_layers": [0, 1],
    "num_attention_heads": 1,
    "num_routed_experts": 4,
    "num_activated_experts": 2,
    "num_layers": 1,
    "num_single_layers": 1,
    "out_channels": 16,
    "patch_size": 2,
    "text_emb_dim": 64,
}
COSMOS2 = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 256,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 64,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 32,
    "num_blocks": 2,
    "num_heads": 2,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0,
    "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}
HYV = {
    "image_model": "hunyuan_video",
    "in_channels": 64,
    "patch_size": [1, 1],
    "out_channels": 64,
    "vec_in_dim": None,
    "axes_dim": [64, 64],
    "meanflow": False,
    "context_in_dim": 64,
    "hidden_size": 256,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 256,
    "qkv_bias": True,
    "byt5": True,
    "guidance_embed": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 256,
    "out_dim": 16,
    "num_heads": 2,
    "ffn_dim": 256,
    "num_layers": 2,
    "patch_size": (1, 2, 2),
    "freq_dim": 256,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "in_dim": 16,
    "text_dim": 64,
}
KANDINSKY = {
    "image_model": "kandinsky5",
    "model_dim": 256,
    "axes_dims": (32, 48, 48),
    "rope_scale_factor": (1.0, 1.0, 1.0),
    "time_dim": 64,
    "ff_dim": 256,
    "visual_embed_dim": 64,
    "num_text_blocks": 1,
    "num_visual_blocks": 2,
    "in_text_dim": 64,
    "in_text_dim2": 64,
}


def seeded(prompt, *shape, key=""):
    seed = int.from_bytes(hashlib.sha256((key + prompt).encode()).digest()[:6], "little")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FIXED = False  # pad all prompts to one length, which the real encoder does not


def length(prompt, least, base=0):
    if FIXED:
        return max(least, base + 24)
    return max(least, base + 2 * len(prompt.split()) + 1)


def text(least, dim=64, pooled=None, base=0, mask=False, **extra):
    """Conditioning with tokens [1, T, dim]; T as the real tokenizer's min_length makes it."""

    def make(prompt):
        t = length(prompt, least, base)
        more = {"pooled_output": seeded(prompt, 1, pooled, key="p") if pooled else None}
        if mask:
            more["attention_mask"] = torch.ones(1, t, dtype=torch.long)
            if mask == "padded":
                more["attention_mask"][:, min(t, 2 * len(prompt.split()) + 1) :] = 0
        for name, function in extra.items():
            more[name] = function(prompt, t)
        return [[seeded(prompt, 1, t, dim), more]]

    return make


# name: (class, config, conditioning, pixels per side)
FAMILIES = {
    # U-Nets
    "sd15_inpaint": ("SD15", {**SD15, "in_channels": 9}, text(77), 64),
    "sd15_ip2p": ("SD15_instructpix2pix", {**SD15, "in_channels": 8}, text(77), 64),
    "sdxl_inpaint": (
        "SDXL",
        {
            **XL,
            "in_channels": 9,
            "transformer_depth": [0, 0, 1, 1, 1, 1],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
        },
        text(77, pooled=1280),
        64,
    ),
    "sdxl_refiner": (
        "SDXLRefiner",
        {
            **XL,
            "channel_mult": (1, 1, 1, 1),
            "num_res_blocks": [2, 2, 2, 2],
            "adm_in_channels": 2560,
            "transformer_depth": [0, 0, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        },
        text(77, pooled=1280),
        64,
    ),
    "ssd1b": (
        "SSD1B",
        {
            **XL,
            "transformer_depth": [0, 0, 2, 2, 4, 4],
            "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
            "transformer_depth_middle": -1,
        },
        text(77, pooled=1280),
        64,
    ),
    "vega": (
        "Segmind_Vega",
        {
            **XL,
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": -1,
        },
        text(77, pooled=1280),
        64,
    ),
    "koala": (
        "KOALA_700M",
        {
            **XL,
            "num_res_blocks": [1, 1, 1],
            "transformer_depth": [0, 2, 5],
            "transformer_depth_output": [0, 0, 2, 2, 5, 5],
            "transformer_depth_middle": -2,
        },
        text(77, pooled=1280),
        64,
    ),
    "cascade_c": (
        "Stable_Cascade_C",
        {
            "stable_cascade_stage": "c",
            "c_cond": 64,
            "c_hidden": [64, 64],
            "nhead": [2, 2],
            "blocks": [[1, 1], [1, 1]],
            "c_clip_text": 64,
            "c_clip_text_pooled": 64,
        },
        text(77, pooled=64),
        512,
    ),
    "cascade_b": (
        "Stable_Cascade_B",
        {
            "stable_cascade_stage": "b",
            "c_cond": 64,
            "c_hidden": [64, 64, 64, 64],
            "nhead": [-1, -1, 2, 2],
            "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "c_clip": 64,
        },
        text(77, pooled=64),
        64,
    ),
    # transformers, 4-D
    "sd35_large": (
        "SD3",
        {
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "depth": 2,
            "input_size": None,
            "adm_in_channels": 64,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 64, "out_features": 128},
            },
            "num_patches": 576,
            "pos_embed_max_size": 24,
            "pos_embed_scaling_factor": None,
            "qk_norm": "rms",
            "x_block_self_attn_layers": [],
        },
        text(154, pooled=64),
        64,
    ),
    "auraflow": (
        "AuraFlow",
        {
            "cond_seq_dim": 64,
            "max_seq": 1024,
            "n_double_layers": 1,
            "n_layers": 2,
            "dim": 128,
            "n_heads": 2,
            "global_conddim": 128,
        },
        text(256),
        64,
    ),
    "pixart_sigma": (
        "PixArtSigma",
        {
            "image_model": "pixart_sigma",
            "num_heads": 4,
            "patch_size": 2,
            "hidden_size": 144,
            "in_channels": 4,
            "depth": 2,
            "caption_channels": 64,
            "model_max_length": 300,
            "micro_condition": False,
            "input_size": 128,
            "pe_interpolation": 2,
        },
        text(1),
        64,
    ),
    "pixart_alpha": (
        "PixArtAlpha",
        {
            "image_model": "pixart_alpha",
            "num_heads": 4,
            "patch_size": 2,
            "hidden_size": 144,
            "in_channels": 4,
            "depth": 2,
            "caption_channels": 64,
            "model_max_length": 120,
            "micro_condition": True,
            "input_size": 128,
            "pe_interpolation": 2,
        },
        text(1),
        64,
    ),
    "hunyuan_dit": (
        "HunyuanDiT",
        {
            "image_model": "hydit",
            "depth": 4,
            "hidden_size": 128,
            "num_heads": 2,
            "text_states_dim": 64,
            "text_states_dim_t5": 64,
        },
        text(
            77,
            mask="padded",
            conditioning_mt5xl=lambda p, t: seeded(p, 1, 256, 64, key="m"),
            attention_mask_mt5xl=lambda p, t: torch.ones(1, 256),
        ),
        64,
    ),
    "hunyuan_dit1": (
        "HunyuanDiT1",
        {
            "image_model": "hydit1",
            "depth": 4,
            "hidden_size": 128,
            "num_heads": 2,
            "text_states_dim": 64,
            "text_states_dim_t5": 64,
            "size_cond": True,
            "use_style_cond": True,
        },
        text(
            77,
            mask="padded",
            conditioning_mt5xl=lambda p, t: seeded(p, 1, 256, 64, key="m"),
            attention_mask_mt5xl=lambda p, t: torch.ones(1, 256),
        ),
        64,
    ),
    "flux_dev": ("Flux", FLUX, text(256, pooled=64), 64),
    "flux_schnell": ("FluxSchnell", {**FLUX, "guidance_embed": False}, text(256, pooled=64), 64),
    "flux_fill": ("FluxInpaint", {**FLUX, "in_channels": 96}, text(256, pooled=64), 64),
    "flux_canny": ("Flux", {**FLUX, "in_channels": 32}, text(256, pooled=64), 64),
    "flux2_dev": ("Flux2", FLUX2, text(512), 64),
    "flux2_klein": ("Flux2", {**FLUX2, "guidance_embed": False}, text(512), 64),
    "ovis": (
        "FluxSchnell",
        {
            **FLUX,
            "guidance_embed": False,
            "vec_in_dim": None,
            "yak_mlp": True,
            "txt_norm": True,
            "txt_ids_dims": [1, 2],
        },
        text(256),
        64,
    ),
    "longcat": (
        "LongCatImage",
        {**FLUX, "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]},
        text(512),
        64,
    ),
    "chroma": ("Chroma", CHROMA, text(1), 64),
    "radiance": ("ChromaRadiance", RADIANCE, text(1), 64),
    "lumina2": ("Lumina2", LUMINA2, text(1, mask=True), 64),
    "newbie": ("Lumina2", {**LUMINA2, "clip_text_dim": 64}, text(1, mask=True, pooled=64), 64),
    "z_image": ("ZImage", ZIMAGE, text(1, mask=True, base=8), 64),
    "hidream": (
        "HiDream",
        HIDREAM,
        text(128, pooled=64, conditioning_llama3=lambda p, t: seeded(p, 1, 2, 128, 64, key="l")),
        64,
    ),
    "omnigen2": (
        "Omnigen2",
        {
            "image_model": "omnigen2",
            "axes_dim_rope": [40, 40, 40],
            "axes_lens": [1024, 1664, 1664],
            "ffn_dim_multiplier": None,
            "hidden_size": 240,
            "in_channels": 16,
            "multiple_of": 256,
            "norm_eps": 1e-5,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "out_channels": None,
            "patch_size": 2,
            "text_feat_dim": 64,
            "timestep_scale": 1000.0,
        },
        text(1, mask=True, base=20),
        64,
    ),
    "kandinsky5_image": ("Kandinsky5Image", KANDINSKY, text(1, pooled=64, base=4), 64),
    "hunyuan_image21": ("HunyuanImage21", HYV, text(1, base=4), 64),
    "hunyuan_image21_distilled": (
        "HunyuanImage21",
        {**HYV, "meanflow": True, "guidance_embed": True},
        text(1, base=4),
        64,
    ),
    "ernie": (
        "ErnieImage",
        {
            "image_model": "ernie",
            "hidden_size": 256,
            "num_attention_heads": 2,
            "num_layers": 2,
            "ffn_hidden_size": 256,
            "text_in_dim": 64,
        },
        text(1, base=4),
        64,
    ),
    # transformers, 5-D
    "qwen_image": (
        "QwenImage",
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "num_layers": 2,
            "num_attention_heads": 2,
            "joint_attention_dim": 64,
        },
        text(1, base=5),
        64,
    ),
    "cosmos_predict2": ("CosmosT2IPredict2", COSMOS2, text(512), 64),
    "anima": (
        "Anima",
        {**COSMOS2, "image_model": "anima", "crossattn_emb_channels": 1024},
        text(
            1,
            1024,
            base=1,
            t5xxl_ids=lambda p, t: (seeded(p, t, key="i").abs() * 1000).long() + 1,
            t5xxl_weights=lambda p, t: torch.ones(t),
        ),
        64,
    ),
    "wan21": ("WAN21_T2V", WAN, text(512), 64),
    "wan22_5b": ("WAN22_T2V", {**WAN, "in_dim": 48, "out_dim": 48}, text(512), 64),
    "ltxv": (
        "LTXV",
        {
            "image_model": "ltxv",
            "num_layers": 2,
            "attention_head_dim": 64,
            "num_attention_heads": 2,
            "cross_attention_dim": 128,
            "caption_channels": 64,
        },
        text(128, mask="padded"),
        64,
    ),
    "hunyuan_video": (
        "HunyuanVideo",
        {
            **HYV,
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": [1, 2, 2],
            "axes_dim": [16, 56, 56],
            "vec_in_dim": 64,
            "byt5": False,
            "guidance_embed": True,
        },
        text(1, pooled=64, base=4, mask=True),
        64,
    ),
    "kandinsky5_video": ("Kandinsky5", {**KANDINSKY, "visual_embed_dim": 132}, text(1, pooled=64, base=4), 64),
    "krea2": (
        "Krea2",
        {
            "image_model": "krea2",
            "features": 256,
            "channels": 16,
            "patch": 2,
            "layers": 2,
            "heads": 2,
            "kvheads": 1,
            "txtlayers": 3,
            "txtdim": 128,
            "txtheads": 2,
            "txtkvheads": 2,
        },
        text(1, 384, base=4),
        64,
    ),
    # newest
    "ideogram4": (
        "Ideogram4",
        {"image_model": "ideogram4", "in_channels": 128, "num_layers": 2},
        text(1, 64, base=4),
        64,
    ),
    "lens": (
        "Lens",
        {
            "image_model": "lens",
            "in_channels": 128,
            "out_channels": 32,
            "num_layers": 2,
            "num_attention_heads": 2,
            "enc_hidden_dim": 64,
            "multi_layer_encoder_feature": True,
            "selected_layer_index": (0, 1),
        },
        text(1, 128, base=4),
        64,
    ),
}


def long_cat(dim, pooled, short, long):
    """One prompt longer than what the real tokenizer pads to (T5 of FLUX.1 256, of SD3 77)."""

    def make(prompt):
        t = long if "cat" in prompt else short
        return [[seeded(prompt, 1, t, dim), {"pooled_output": seeded(prompt, 1, pooled, key="p")}]]

    return make


FAMILIES["flux_dev_long_prompt"] = ("Flux", FLUX, long_cat(64, 64, 256, 457), 64)
FAMILIES["sd35_long_prompt"] = ("SD3", FAMILIES["sd35_large"][1], long_cat(64, 64, 154, 842), 64)
