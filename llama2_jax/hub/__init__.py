"""Files and models on the Hugging Face hub, by their hf:// address."""
