"""`python -m benchmarks.card.loaded FOLDER DEVICE FILE`: load an export with transformers, and note what it guesses."""

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForPreTraining

SENTENCE = "She was very [MASK] to see him."


def main() -> None:
    """Write the likeliest word in the place of the mask to a file."""
    folder, device, answer = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForPreTraining.from_pretrained(folder).to(device).eval()
    inputs = tokenizer(SENTENCE, return_tensors="pt").to(device)
    with torch.no_grad():
        scores = model(**inputs).prediction_logits
    if not scores.isfinite().all():
        raise RuntimeError(f"{folder}: a score is not finite")
    at = int((inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    word = tokenizer.decode(int(scores[0, at].argmax()))
    answer.write_text(f"transformers guesses {word!r} in {SENTENCE!r}\n")


if __name__ == "__main__":
    main()
