"""The paper's figures as the package gives them."""

from genedml_cli.evaluation.published import CROSS_VALIDATION, published_rows


def test_a_row_of_table_1_has_its_mae_from_table_7():
    rows = {row.method: row for row in published_rows(CROSS_VALIDATION, "HER2ST")}
    assert next(iter(rows)) == "ST-Net"
    assert rows["TRIPLEX"].mean["pcc_a"] == 0.314
    assert rows["Gene-DML"].mean.keys() == {"mse", "mae", "pcc_a", "pcc_h"}
    assert rows["Gene-DML"].sd["pcc_a"] == 0.07


def test_every_row_of_the_tables_of_methods_is_of_a_network():
    networks = {row.network for row in published_rows([1, 2, 7])}
    assert networks == {"gene-dml", "st-net", "histogene", "hist2st", "egn", "bleep", "triplex", "m2ost"}


def test_an_ablation_has_its_settings_in_the_papers_order():
    settings = [row.setting for row in published_rows([9], "HER2ST")]
    assert settings == ["k=15", "k=16", "k=18", "k=20"]


def test_table_2_has_three_sections():
    assert len({row.dataset for row in published_rows([2])}) == 3
