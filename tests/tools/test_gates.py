"""The table of gates counts what the gates say; the fit finds the middle, and the place that is like it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.cases.nifti import write_volume
from medseg.phantoms.hip import make_hip
from medseg.phantoms.series import stack_geometry
from medseg.transforms.gate import read_gate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "gates"))
import fit  # noqa: E402
import table  # noqa: E402


def test_every_rule_that_refuses_is_counted_in_its_own_column(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(table, "HIPS", 2)
    monkeypatch.setattr(table, "GRAINS", 3)
    rng = np.random.default_rng(0)
    geometry = stack_geometry((8, 40, 40), gaps_mm=3.0, pixel_spacing_mm=(3.0, 3.0))
    labels = np.zeros((8, 40, 40), np.float32)
    labels[:, 10:20, 10:20] = 1
    stored = rng.integers(0, 2000, (8, 40, 40)).astype(np.float32)
    tissue = np.where(rng.random((8, 40, 40)) < 0.5, -80, 40) + rng.normal(0, 9, (8, 40, 40)).round()
    for name, volume in (("label", labels), ("stored", stored), ("tissue", tissue.astype(np.float32))):
        folder = tmp_path / "ct" / "set" / name
        folder.mkdir(parents=True)
        write_volume(volume, geometry, folder / "image.nii.gz")
    Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "ct" / "noise.png")

    assert table.main([str(tmp_path), "-o", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("<!-- gate of ct_head_neck -->\n### ct_head_neck") and "### mm_gtv" in page
    # 24 mm are too few for either; values come first only for the two that are no HU.
    assert "| ct/set, image.nii.gz | 3 | 0 |  |  |  | 2 | 3 |  |" in page
    assert "| ct | 1 | 0 |  |  |  |  |  |  |  |  | 1 |" in page
    assert "| made: noise of 3 grains | 3 |" in page
    assert "### cxr_anatomy" in capsys.readouterr().out
    hips = page.split("### hip_osteoporosis")[1]
    assert "| made: hip phantoms | 2 | 2 |" in hips
    for lies in ("hip phantoms upside down", "hip phantoms, the other side stated"):
        assert f"| made: {lies} | 2 | 0 |  |  |  |  |  |  |  |  |  | 2 |" in hips
    # A grey picture is none to a bundle that learned from colours; of what is made, noise and phantoms are.
    eye = page.split("### eye_lesion")[1]
    assert "| ct | 1 | 0 | 1 |" in eye and "| made: noise of 3 grains, coloured | 3 |" in eye
    assert "| made: fundus phantoms | 3 |" in eye

    assert table.main([str(tmp_path), "--bundle", "cxr_anatomy", "-o", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == page, "the other tables stay"
    assert "### ct_gtv" not in capsys.readouterr().out


def test_the_fit_is_mean_and_covariance_over_the_likeliest_place_of_each_image():
    rng = np.random.default_rng(1)
    truth = rng.normal((1.0, 2.0), (0.1, 0.3), (200, 2))
    far = rng.normal((9.0, 9.0), 0.1, (200, 2))
    samples = [
        fit.Sample(str(n), (np.stack([a, b]),)) for n, (a, b) in enumerate(zip(truth, far, strict=True))
    ]
    kind = fit.Kind("", (), (), "tissue", 1.1, shrinkage=0.0)
    mean, covariance = fit.fit(samples, kind)
    assert mean == pytest.approx(truth.mean(0)) and covariance == pytest.approx(np.cov(truth.T))
    assert fit.furthest(samples[0], mean, covariance) == pytest.approx(
        np.sqrt((truth[0] - mean) @ np.linalg.inv(covariance) @ (truth[0] - mean))
    )
    assert fit.furthest(fit.Sample("empty", (np.empty((0, 2)),)), mean, covariance) == np.inf
    assert fit.rate([1.0, 5.0, np.inf], 4.0) == "2 of 3 refused (66.7 %), furthest 5.00"


def film_of(path):
    return fit.small_film(fit.torch.from_numpy(fit.open_radiograph(path).pixels))


def test_a_copy_of_a_bundle_gets_the_gate_of_its_own_films_and_the_words_for_them(tmp_path, capsys):
    cases = []
    for number in range(14):
        film = make_hip(number, (-4.0, 0.5)[number % 2], pixels=160).image
        Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(tmp_path / f"{number}.png")
        cases.append({"image": f"{number}.png", "case_id": str(number), "side": "L"})
    right = np.asarray(Image.open(tmp_path / "3.png"))[:, ::-1]
    Image.fromarray(np.ascontiguousarray(right)).save(tmp_path / "3.png")
    cases[3]["side"] = "R"
    datalist, gate = tmp_path / "list.json", tmp_path / "my_hips" / "configs" / "gate.json"
    datalist.write_text(json.dumps({"training": cases[:10], "validation": cases[10:], "test": []}))
    shipped = Path(fit.find_bundle("hip_osteoporosis").folder, "configs", "gate.json").read_text()
    words = [
        "hip_osteoporosis",
        str(tmp_path),
        "--into",
        str(tmp_path / "my_hips"),
        "--datalist",
        str(datalist),
    ]
    words += ["--learned-from", "films of our clinic"]
    assert fit.main(words) == 2 and "no configs/gate.json" in capsys.readouterr().err
    gate.parent.mkdir(parents=True)
    gate.write_text(shipped)
    assert fit.main(words) == 0
    made = json.loads(gate.read_text())
    assert made["learned_from"] == "films of our clinic" and made.keys() == json.loads(shipped).keys()
    taken = read_gate(gate)
    assert taken.learned_from == "films of our clinic" and "test" not in made["fitted"]
    lefts = [film_of(tmp_path / f"{n}.png")[:, :: -1 if n == 3 else 1] for n in range(10)]
    assert np.abs(np.mean(lefts, axis=0) - np.array(made["left_template"])).max() < 6e-4
    assert made["fitted"]["command"].endswith("--datalist list.json --learned-from 'films of our clinic'")
    assert Path(fit.find_bundle("hip_osteoporosis").folder, "configs", "gate.json").read_text() == shipped
    no_side = [{**case, "side": ""} for case in cases]
    datalist.write_text(json.dumps({"training": no_side[:10], "validation": cases[10:]}))
    assert (
        fit.main(words) == 2 and "0.png: neither the datalist nor the image says" in capsys.readouterr().err
    )
    datalist.write_text(json.dumps({"training": cases}))
    assert fit.main(words) == 2 and "fewer than 1 cases under 'validation'" in capsys.readouterr().err
    assert json.loads(gate.read_text()) == made, "what is refused leaves the gate alone"
    with pytest.raises(SystemExit):
        fit.main(words[:4])
