"""What methods ask of the tokens of a log: sums over a response or a prompt, places, what is known; all by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dppo_core.tokens import TokenArrays, TopKLists

NAN = math.nan


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def listed(values: torch.Tensor) -> list[float | None]:
    """As a list, with None for NaN, so that lists compare."""
    return [None if math.isnan(value) else value for value in values.tolist()]


# Response 0 has 3 tokens, response 1 has 1, response 2 none (only `reward` knows of it), response 3 has 2.
# Responses 0 and 3 answer prompt 7, 1 and 2 prompt 5: in order of the prompts' numbers, 5 is group 0 and 7 is group 1.
TOKENS = TokenArrays(
    advantage=tensor(1, 1, 1, -1, 0, 2),
    sequence=torch.tensor([0, 0, 0, 1, 3, 3]),
    logp_rollout=tensor(-1, -2, -3, -4, -5, -6),
    logp_old=tensor(-1.5, -2, -3, -4, -5, -6),
    group=torch.tensor([7, 5, 5, 7]),
    reward=tensor(1, 0, 0, 1),
)


def test_lengths_and_places_count_from_each_response_s_first_token() -> None:
    assert TOKENS.n_sequences == 4
    assert TOKENS.lengths().tolist() == [3, 1, 0, 2]
    assert TOKENS.positions().tolist() == [0, 1, 2, 0, 0, 1]


def test_sums_means_and_maxima_over_a_response() -> None:
    values = tensor(1, 2, 6, -4, 0.5, 1.5)
    assert listed(TOKENS.per_sequence(values, "sum")) == [9, -4, 0, 2]
    assert listed(TOKENS.per_sequence(values)) == [3, -4, None, 1]  # no tokens: no mean
    assert listed(TOKENS.per_sequence(values, "max")) == [6, -4, None, 1.5]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_an_unknown_token_makes_its_response_unknown_and_no_other(reduce: str) -> None:
    found = listed(TOKENS.per_sequence(tensor(1, NAN, 6, -4, 2, 2), reduce))
    assert found[0] is None
    assert [found[1], found[3]] == [-4, {"sum": 4, "mean": 2, "max": 2}[reduce]]


def test_a_response_s_value_goes_back_to_its_tokens() -> None:
    assert TOKENS.to_tokens(tensor(10, 20, 30, 40)).tolist() == [10, 10, 10, 20, 40, 40]


def test_sums_and_means_over_the_responses_of_a_prompt() -> None:
    assert TOKENS.groups().tolist() == [1, 0, 0, 1]
    values = tensor(1, 2, 4, 5)
    assert listed(TOKENS.per_group(values, "sum")) == [6, 6]
    assert listed(TOKENS.per_group(values)) == [3, 3]
    assert listed(TOKENS.per_group(values, "max")) == [4, 5]
    assert listed(TOKENS.per_group(tensor(1, 2, NAN, 5))) == [None, 3]


def test_sums_over_the_earlier_tokens_of_the_same_response() -> None:
    # response 0: nothing before the first, then .1, then .1+.2; every response starts anew
    values = tensor(0.1, 0.2, 0.4, 8, 16, 32)
    assert TOKENS.before(values).tolist() == pytest.approx([0, 0.1, 0.1 + 0.2, 0, 0, 16])
    assert TOKENS.before(values)[:3].tolist() == [0, 0.1, 0.1 + 0.2]  # the first response without any rounding


def test_an_unknown_token_leaves_what_comes_before_it_and_other_responses_known() -> None:
    assert listed(TOKENS.before(tensor(1, NAN, 4, 8, 16, 32))) == [0, 1, None, 0, 0, 16]
    assert listed(TOKENS.before(tensor(NAN, 2, 4, 8, NAN, 32))) == [0, None, None, 0, 0, None]


def test_no_tokens_at_all() -> None:
    nothing = TokenArrays(advantage=tensor(), sequence=torch.tensor([], dtype=torch.int64))
    assert nothing.n_sequences == 0
    assert nothing.before(tensor()).tolist() == []
    assert nothing.positions().tolist() == []
    assert nothing.per_sequence(tensor(), "max").tolist() == []


def test_what_is_known_of_a_token_a_response_and_a_prompt() -> None:
    tokens = TokenArrays(
        advantage=tensor(1, 1, 1, -1, 0, 2),
        sequence=torch.tensor([0, 0, 0, 1, 3, 3]),
        logp_old=tensor(-1, NAN, -1, -1, -1, -1),
        group=torch.tensor([7, 5, 5, 7]),
        reward=tensor(1, 0, 0, 1),
    )
    needs = ("logp_old",)
    assert tokens.known(needs, "token").tolist() == [True, False, True, True, True, True]
    assert tokens.known(needs, "sequence").tolist() == [False, False, False, True, True, True]
    # response 3 answers the same prompt as response 0
    assert tokens.known((*needs, "group"), "prompt").tolist() == [False, False, False, True, False, False]


def test_an_unknown_reward_or_advantage_or_list_is_an_unknown_token() -> None:
    def known(needs: tuple[str, ...], **given: object) -> list[bool]:
        given = {"advantage": tensor(1, 1, 1), "sequence": torch.tensor([0, 0, 1]), **given}
        return TokenArrays(**given).known(needs, "token").tolist()  # type: ignore[arg-type]

    assert known(("reward",), reward=tensor(NAN, 1)) == [False, False, True]
    assert known((), advantage=tensor(1, NAN, 1)) == [True, False, True]
    lists = TopKLists(torch.tensor([[-1.0, NAN], [NAN, NAN], [-1.0, -2.0]]), torch.zeros(3, 2))
    assert known(("topk_lists",), topk_lists=lists) == [True, False, True]


def test_pairs_are_taken_as_stored_and_computed_otherwise() -> None:
    tokens = TokenArrays(
        advantage=tensor(1, 1),
        sequence=torch.tensor([0, 1]),
        logp_rollout=torch.log(tensor(0.5, 0.2)),
        logp_old=torch.log(tensor(0.25, 0.2)),
        logp_new=torch.log(tensor(0.75, 0.3)),
    )
    assert tokens.log_ratio("rollout").exp().tolist() == pytest.approx([1.5, 1.5])
    assert tokens.log_ratio("old").exp().tolist() == pytest.approx([3, 1.5])
    assert tokens.log_mismatch.exp().tolist() == pytest.approx([0.5, 1])
    assert tokens.divergence("tv", "binary", "rollout").tolist() == pytest.approx([0.25, 0.1])
    stored = tokens.with_statistics(log_ratio_old=tensor(7, 8), log_mismatch=tensor(9, 9), tv_binary_old=tensor(3, 4))
    assert stored.log_ratio("old").tolist() == [7, 8]
    assert stored.log_mismatch.tolist() == [9, 9]
    assert stored.divergence("tv", "binary", "old").tolist() == [3, 4]


def test_inputs_that_a_log_lacks_say_why() -> None:
    assert TOKENS.missing("logp_rollout") is None
    assert TOKENS.missing("logp_new") == "the new policy was not scored or logged"
    assert TOKENS.missing("kl_exact_rollout") is not None
    assert TokenArrays(tensor(1), torch.tensor([0]), logp_old=tensor(NAN)).missing("logp_old") is not None
    with pytest.raises(KeyError, match="not an input of methods"):
        TOKENS.missing("logp_newer")


def test_tokens_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logp_old has shape \(3,\), but advantage has 2 tokens"):
        TokenArrays(tensor(1, 1), torch.tensor([0, 0]), logp_old=tensor(1, 2, 3))
    with pytest.raises(ValueError, match="sequence must not decrease"):
        TokenArrays(tensor(1, 1), torch.tensor([1, 0]))
