"""The ComfyUI adapter behind the nodes; with the nodes the only place that imports ComfyUI."""
