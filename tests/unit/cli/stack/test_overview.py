from esteira_cli.stack.overview import dead_lettered


def test_dead_letters_are_counted_by_subscription() -> None:
    answer = {
        "subscriptions": {
            "projects/p/subscriptions/dataset-prepared.dead": {"outstanding": 2},
            "projects/p/subscriptions/model-promoted.dead": {"outstanding": 0},
            "projects/p/subscriptions/dataset-prepared.trainer": {"outstanding": 7},
        }
    }
    assert dead_lettered(answer) == {"dataset-prepared.dead": 2}


def test_without_an_emulator_there_is_nothing_to_count() -> None:
    assert dead_lettered(None) == {}
