from vdm.training.weight_groups import MAX_RANGES, weight_groups


def test_parts_of_a_network_are_groups_of_their_own() -> None:
    names = {
        "model.network.down.0.norm.weight": "down.0",
        "model.network.down.1.norm.weight": "down.1",
        "model.network.middle.0.0.weight": "middle.0",
        "model.network.exit.bias": "exit",
        "model.conditioner.text_encoder.layers.3.weight": "text_encoder",
        "objective.discriminator.weight": "objective",
    }
    assert weight_groups(names) == names


def test_many_blocks_are_joined_into_few_ranges_in_order() -> None:
    groups = weight_groups(f"model.network.blocks.{index}.weight" for index in range(30))
    assert groups["model.network.blocks.0.weight"] == "blocks.00-03"
    assert groups["model.network.blocks.29.weight"] == "blocks.28-29"
    found = list(dict.fromkeys(groups.values()))
    assert found == sorted(found)
    assert len(found) <= MAX_RANGES
