"""Networks that MONAI lacks. Every network returns logits of shape (B, C_out, *spatial)."""
