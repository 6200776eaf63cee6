"""Two processes train one model by the same methods as one does, or say that they cannot."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medseg.errors import InputError
from medseg.networks.quality import QualityModule
from medseg.training.noisy.quality_weights import case_number
from medseg.training.noisy.trainer import NoisyLabelTrainer

METHODS = {
    "ce": {},
    "trimming": {"drop_share": 0.5},
    "loss_history": {},
    "adele": {},
    "qam_ocm": {"pool": "gather"},
}
"""Those that work in several processes, with their options."""
REFUSED = {
    "t_loss": ({}, "each would train loss by itself"),
    "co_teaching": ({"drop_share": 0.5}, "each would train peer by itself"),
    "confident_learning": ({"teacher_epochs": 1}, "each would train teacher0 and teacher1 by itself"),
    "qam": ({"pool": "gather", "wrapped": False}, "each would train quality by itself"),
    "qam_ocm": ({}, "each would weigh its own batch alone, without pool=gather"),
}


def trainer_of(method: str, options: dict, samples: list) -> NoisyLabelTrainer:
    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Conv2d(1, 1, 3, padding=1))
    options = dict(options)
    wrapped = options.pop("wrapped", True)
    if method.startswith("qam"):
        quality = QualityModule(2, 2, backbone=((4,),))
        options["quality"] = DistributedDataParallel(quality) if wrapped else quality
    return NoisyLabelTrainer(
        device=torch.device("cpu"),
        max_epochs=6,
        train_data_loader=torch.utils.data.DataLoader(samples, batch_size=2),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 0.05),
        decollate=False,
        method=method,
        method_options=options,
    )


def samples_of(rank: int) -> list[dict]:
    """Four images of this process with a bright box; every second label lacks the half of it."""
    torch.manual_seed(10 + rank)
    made = []
    for number in range(4):
        label = torch.zeros(1, 8, 8)
        label[:, 2:6, 2:6] = 1
        image = label + 0.1 * torch.randn(1, 8, 8)
        label[:, 4:] *= number % 2
        made.append({"image": image, "label": label, "case_id": f"{rank}/{number}"})
    return made


def one_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for method, options in METHODS.items():
        trainer = trainer_of(method, options, samples_of(rank))
        trainer.run()
        networks = [trainer.network, *trainer.learner.modules.values()]
        weights = [value.flatten() for network in networks for value in network.state_dict().values()]
        memory = getattr(trainer.learner, "history", getattr(trainer.learner, "curve", None))
        found[method] = {"weights": torch.cat([part.float() for part in weights]).tolist(), "memory": memory}
    for method, (options, _) in REFUSED.items():
        try:
            trainer_of(method, options, samples_of(rank))
            found[f"refused {method}"] = "built"
        except InputError as error:
            found[f"refused {method}"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_in_two_processes) -> list[dict]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    run_in_two_processes(__file__, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_end_with_the_same_weights_and_remember_the_same(method, found):
    first, second = (one[method] for one in found)
    assert first == second and len(first["weights"]) > 9


@pytest.mark.slow
def test_a_history_of_losses_holds_the_cases_of_both(found):
    cases = {str(case_number(f"{rank}/{number}")) for rank in (0, 1) for number in range(4)}
    assert set(found[0]["loss_history"]["memory"]) == cases


@pytest.mark.slow
@pytest.mark.parametrize("method", REFUSED)
def test_what_each_process_would_learn_by_itself_is_refused_in_one_line(method, found):
    for one in found:
        error = one[f"refused {method}"]
        assert error.startswith(f"method '{method}' in 2 processes: {REFUSED[method][1]}.")
        assert "\n" not in error and "Train in one process" in error


if __name__ == "__main__":
    one_process(int(sys.argv[1]), Path(sys.argv[2]))
