"""The rate-distortion table: what a row loses is judged on the clips that it has."""

from benchmarks.codec_report import (
    FIELDS,
    NEAREST,
    compare_codes,
    compare_hybrid,
    compare_noise_codebooks,
    make_table,
    read_rows,
)  # fmt: skip


def row(system: str, clip: str, **more) -> dict[str, str]:
    return dict.fromkeys(FIELDS, "") | dict(system=system, clip=clip, seconds="5", bytes="0") | more


ROWS = [
    row("ceiling", "a", plain_db="3", refined_db="2", unet_calls="0"),
    row("ceiling", "b", plain_db="5", refined_db="4", unet_calls="0"),
    row("turbo 1", "a", plain_db="3.5", refined_db="2.25", bytes="625", unet_calls="30", visqol="nan"),
    row("turbo 1", "b", plain_db="5.5", refined_db="4.75", bytes="625", unet_calls="30", visqol="2"),
    row("turbo 2", "b", plain_db="5.1", refined_db="4.1", bytes="1250", unet_calls="30"),
    row("opus 6", "a", refined_db="9", bytes="3750"),
]


def test_rows_are_means_over_the_same_clips():
    lines = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in make_table(ROWS).split("\n")[-4:]
    }
    assert lines["turbo 1"][:8] == ["2", "1.00", "30", "-", "4.50", "0.50", "3.50", "0.50"]
    assert lines["turbo 2*"][:8] == ["1", "2.00", "30", "-", "5.10", "0.10", "4.10", "0.10"]
    assert lines["opus 6*"][4:8] == ["-", "-", "9.00", "7.00"] and lines["turbo 1"][11] == "2.00"


def test_a_table_without_the_newer_columns_is_read(tmp_path):
    """The columns of judges are empty, and rows that are measured afterwards have them."""
    path = tmp_path / "codec.csv"
    path.write_text("system,kind,clip,seconds,bytes,stoi\nturbo 1,speech,a,5,625,0.5\n")
    rows = [*read_rows(path), row("turbo 1", "b", stoi="0.7", dnsmos="2.5", word_error="nan")]
    assert list(rows[0]) == list(FIELDS) and rows[0]["dnsmos"] == "" and read_rows(tmp_path / "none.csv") == []
    head, _, line = (line.strip("| ").split(" | ") for line in make_table(rows).splitlines()[-3:])
    cells = dict(zip(head, line, strict=True))
    assert (cells["stoi"], cells["dnsmos"], cells["word_error"], cells["pesq_wb"]) == ("0.60", "2.50", "-", "-")


def test_noise_codebooks_are_compared_clip_by_clip():
    names = {"turbo hadamard 1": (2.0, 3.0), "turbo gaussian 1": (2.5, 3.1), "turbo gaussian 2": (9.0, 9.0)}
    rows = [
        row(name, clip, mel_db=str(mel)) for name, both in names.items() for clip, mel in zip("ab", both, strict=True)
    ]
    assert "-0.300 (0.200) at 1 kbps; -0.300 (0.200) over all 2 pairs" in compare_noise_codebooks(rows)
    assert compare_noise_codebooks(ROWS) == ""


def test_codes_are_compared_at_equal_error():
    """The nearest atoms have 4 dB at 1 kbps and 2 at 2; 2.83 dB then takes 1.41 kbps, and vq has it at 0.71."""
    rows = [row(f"{NEAREST}{n}", "a", mel_db=str(4 / n), bytes=str(625 * n)) for n in (1, 2)]
    rows.append(row("vq 8 atoms, levels 1", "a", mel_db=str(8**0.5), bytes=str(442)))
    assert "by levels: 50 % of 1." in compare_codes(rows) and compare_codes(ROWS) == ""
    assert NEAREST not in make_table(rows)


def test_the_hybrid_is_compared_at_its_rate():
    rows = [
        row(f"{parent}{n}", clip, mel_db=str(4 / n * scale), refined_db="3", bytes=str(625 * n))
        for parent, scale in (("turbo hadamard ", 1), ("vq 8 atoms, levels ", 2)) for n in (1, 2) for clip in "ab"
    ]  # fmt: skip
    rows += [row("hybrid 1.5", clip, mel_db="2.5", refined_db="2.9", bytes="937") for clip in "ab"]
    lines = compare_hybrid(rows).splitlines()
    assert "| hybrid 1.5 | 1.50 | 2.500 | 2.668 | 5.336 | 2.900 | 3.000 | 3.000 |" in lines
    by_clip = "| hybrid 1.5 | -0.168 (0.000) of 2 | -2.836 (0.000) of 2 | -0.100 (0.000) of 2 | -0.100 (0.000) of 2 |"
    assert lines[-1] == by_clip
    beyond = [row("hybrid 3", clip, mel_db="1", refined_db="1", bytes="1875") for clip in "ab"]
    assert compare_hybrid(rows + beyond).splitlines()[-1].count("too few clips of 0") == 4
    assert compare_hybrid(ROWS) == ""
