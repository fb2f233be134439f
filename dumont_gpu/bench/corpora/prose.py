"""Made-up texts of the benchmark's workspace: real words drawn by rank, records, logs, tables of numbers. By NumPy."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np


class Prose:
    """Real words, drawn by their rank in the model's vocabulary."""

    def __init__(self, vocabulary: list[str], rng: np.random.Generator) -> None:
        self._words = np.array([word for word in vocabulary if len(word) > 1 and word.isascii() and word.isalpha()])
        weight = 1 / (np.arange(len(self._words)) + 2.7)  # Zipf-Mandelbrot; BERT's vocabulary is sorted by frequency
        self._cumulative = np.cumsum(weight / weight.sum())
        self._rng = rng

    def __call__(self, count: int) -> str:
        ranks = np.searchsorted(self._cumulative[:-1], self._rng.random(count))
        return " ".join(self._words[ranks].tolist()).capitalize() + "."


def records(prose: Prose, dice: random.Random, count: int) -> bytes:
    lines = []
    for _ in range(count):
        text = " ".join(prose(dice.randint(6, 24)) for _ in range(dice.randint(1, 8)))
        record = {
            "id": f"{dice.getrandbits(128):032x}",
            "source": dice.choice(["web", "books", "code", "forum", "wiki"]),
            "created": f"2024-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}T{dice.randint(0, 23):02}:00:00Z",
            "quality": round(dice.betavariate(5, 2), 4),
            "labels": dice.sample(range(40), dice.randint(0, 4)),
            "text": text,
        }
        lines.append(json.dumps(record))
    return ("\n".join(lines) + "\n").encode()


def evaluation(prose: Prose, dice: random.Random, count: int) -> bytes:
    def answer() -> dict[str, Any]:
        logits = [round(dice.gauss(0, 3), 6) for _ in range(4)]
        return {"question": prose(12), "logits": logits, "target": dice.randrange(4), "ms": dice.randint(11, 90)}

    tasks = {f"task_{i:02}": [answer() for _ in range(count // 8)] for i in range(8)}
    return json.dumps({"model": "minilm", "results": tasks}, indent=2).encode()


def measurements(dice: random.Random, count: int) -> bytes:
    lines, clock, price = ["timestamp,user_id,country,device,price,quantity,discount,latency_ms"], 1_700_000_000, 40.0
    for _ in range(count):
        clock += int(dice.expovariate(0.2))
        price = max(1.0, price + dice.gauss(0, 0.6))
        country, device = dice.choice(["DE", "US", "FR", "JP", "IN", "BR"]), dice.choice(["ios", "android", "web"])
        user = int(dice.paretovariate(1.1)) % 90_000
        tail = f"{dice.randint(1, 9)},{dice.choice(['', '0.05', '0.1'])},{dice.lognormvariate(4, 0.6):.1f}"
        lines.append(f"{clock},{user},{country},{device},{price:.2f},{tail}")
    return ("\n".join(lines) + "\n").encode()


def training_log(prose: Prose, dice: random.Random, steps: int) -> bytes:
    lines, seconds = [], 0.0
    for step in range(steps):
        seconds += dice.gauss(0.412, 0.02)
        hours, rest = divmod(int(seconds), 3600)
        clock = f"{hours:02}:{rest // 60:02}:{rest % 60:02},{int(seconds % 1 * 1000):03}"  # at most 7 h of steps
        stamp = f"2024-06-07 {clock}"
        loss = 2.1 + 8.3 / (1 + step / 400) ** 0.6 + dice.gauss(0, 0.05)
        rate = 3e-4 * min(1, (step + 1) / 500) / (1 + step / 9000)
        pace = f"lr={rate:.3e} grad_norm={dice.lognormvariate(0, 0.3):.3f} tok/s={int(dice.gauss(158_000, 2_500))}"
        lines.append(f"{stamp} INFO trainer step={step} loss={loss:.4f} {pace} mem={dice.gauss(61.3, 0.2):.2f}GiB")
        if step % 250 == 249:
            lines.append(f"{stamp} INFO eval step={step} perplexity={2.718 ** (loss - 0.1):.3f} sample: {prose(18)}")
        if dice.random() < 0.004:
            shard = dice.randrange(512)
            lines.append(f"{stamp} WARNING loader shard-{shard:05}.jsonl retried after {dice.expovariate(0.4):.2f} s")
    return ("\n".join(lines) + "\n").encode()
