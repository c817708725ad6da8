"""The schema of studies, methods by name, and the errors of wrong study files."""

import pytest

from saddlepoint.compare.preflight import validate_study
from saddlepoint.compare.runs import default_parameters, run_config, search_space
from saddlepoint.compare.study import (
    Range,
    method_from_name,
    read_study,
)
from saddlepoint.errors import UsageError
from saddlepoint.registry import (
    OPTIMIZER_SPACES,
    OPTIMIZERS,
    PROBLEMS,
    RECIPES,
    RULES,
    build_recipe_rule,
    load,
)


class TestMethodNames:
    @pytest.mark.parametrize(
        ("name", "rule", "optimizer", "family"),
        [
            ("adam", "gradient", "adam", "first-order"),
            ("sign", "gradient", "sign", "subgradient"),
            ("extragradient+sign", "extragradient", "sign", "subgradient"),
            ("soap", "gradient", "soap", "second-order"),
            ("pytorch_optimizer:SOAP", "gradient", "pytorch_optimizer:SOAP", "second-order"),
            ("sga+rmsprop", "sga", "rmsprop", "second-order"),
            ("acgd", "acgd", None, "second-order"),
        ],
    )
    def test_names(self, name, rule, optimizer, family):
        plan = method_from_name(name)
        assert (plan.rule.name, plan.optimizer and plan.optimizer.name, plan.family) == (
            rule,
            optimizer,
            family,
        )

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("adamm", 'Unknown method "adamm": "adamm" is not an optimizer. Did you mean "adam"?'),
            ("sgd+adam", 'Unknown method "sgd+adam": "sgd" is not a rule.'),
            (
                "sga+",
                'Method "sga+" has no optimizer after the plus sign. Write sga+adam, or sga alone.',
            ),
        ],
    )
    def test_unknown_names(self, name, sentence):
        with pytest.raises(UsageError) as error:
            method_from_name(name)
        assert str(error.value).startswith(sentence)

    def test_spaces_are_of_registered_rules_and_optimizers(self):
        assert set(RECIPES) == set(RULES)
        assert {name for name in OPTIMIZER_SPACES if ":" not in name} == set(OPTIMIZERS)

    @pytest.mark.parametrize("name", [*RULES, *OPTIMIZERS])
    def test_every_choice_of_every_space_can_be_built(self, small_study, name):
        problem = (
            {"problem": {"name": "digits-binary"}}
            if RULES.get(name) and build_recipe_rule(name).order == 0
            else {}
        )
        validate_study(small_study(methods=[name], problem=problem))

    @pytest.mark.parametrize(
        "name", ["adam", "soap", "acgd", "newton", "sga+adam", "normalized", "sign"]
    )
    def test_the_first_trial_has_the_defaults_of_the_method(self, small_study, name):
        study = small_study(methods=[name])
        plan, method = study.problems[0], study.methods[name]
        start = default_parameters(plan, method)
        assert start["optimizer.lr"] > 0
        assert all(
            where.nearest(start[path]) == start[path]
            for path, where in search_space(plan, method).items()
            if path in start
        )


class TestProblems:
    @pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "mnist"])
    def test_every_problem_has_a_metric_to_be_compared_by(self, small_study, name):
        plan = {"problem": name, "settings": {}, "metric": PROBLEMS[name].metric}
        validate_study(small_study(methods=["adam"], problem=plan))
        assert PROBLEMS[name].metric.removeprefix("ema/") in load(PROBLEMS[name].path).metric_names


class TestStudyFile:
    def test_a_file_is_the_same_as_its_own_dump(self, small_study, tmp_path):
        import yaml

        study = small_study(tuning={"trials": 3}, methods=["adam", "acgd"])
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(study.to_dict()))
        assert read_study(path) == study

    def test_precedence_of_settings(self, small_study):
        methods = {"adam": {"settings": {"batch_size": 3, "optimizer.eps": 1e-3}}}
        study = small_study(methods=methods, problem={"settings": {"batch_size": 8, "ema": 0.5}})
        config = run_config(
            study.problems[0],
            study.methods["adam"],
            {"optimizer.lr": 0.25, "ratio": 2.0, "ema": 0.7},
        )
        assert (config.batch_size, config.ema, config.optimizer.options["eps"]) == (3, 0.7, 1e-3)
        assert [
            config.optimizer.options_for(player)["lr"] for player in ("generator", "discriminator")
        ] == [0.25, 0.5]

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"seeds": 0}, "The study: seeds: Input should be greater than or equal to 1."),
            ({"methods": []}, "The study: methods: the list is empty."),
            ({"methods": ["adm"]}, 'Unknown method "adm"'),
            ({"methods": 3}, "The study: methods must be a list of names"),
            ({"baseline": "sgd"}, 'The study: baseline "sgd" is not a method of the study.'),
            (
                {"tuning": {"trials": 2, "seeds": [1]}},
                "The study: tuning: [1] are reported seeds too",
            ),
            (
                {"problem": {"budget": {"steps": 1, "seconds": 1}}},
                "The study: problems.0: budget: give one of gradient_equivalents, seconds, steps",
            ),
            (
                {"problem": {"methods": ["acgd"]}},
                'The study: problem "tiny ring": unknown method "acgd".',
            ),
            (
                {"problem": {"problem": "mixture9"}},
                'The study: problems.0: Unknown problem "mixture9". Did you mean "mixture',
            ),
            ({"sedes": 3}, "The study: sedes: Extra inputs are not permitted."),
        ],
    )
    def test_mistakes_are_named(self, small_study, change, sentence):
        with pytest.raises(UsageError) as error:
            small_study(**change)
        assert str(error.value).startswith(sentence)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                {"problem": {"metric": "ema/frechet"}},
                'Problem "tiny ring": cannot compare methods by "ema/frechet": the',
            ),
            (
                {"problem": {"metric": "average/modes"}},
                'Problem "tiny ring": cannot compare methods by "average/modes": not every',
            ),
            (
                {"problem": {"settings": {"bacth_size": 3}}},
                'Problem "tiny ring", method "adam": Configuration: unknown key "bacth_size".',
            ),
            (
                {"methods": ["cgd+adam"]},
                (
                    'Problem "tiny ring", method "cgd+adam": Player "discriminator":'
                    " CompetitiveGradient returns updates"
                ),
            ),
            (
                {"methods": {"adam": {"space": {"optimizer.betas": {"choices": [[0, 2]]}}}}},
                'Problem "tiny ring", method "adam": Optimizer adam refuses its options',
            ),
        ],
    )
    def test_mistakes_that_show_when_methods_are_built(self, small_study, change, sentence):
        with pytest.raises(UsageError) as error:
            validate_study(small_study(**change))
        assert str(error.value).startswith(sentence)


class TestRange:
    def test_nearest(self):
        assert Range(log=(0.1, 1)).nearest(5) == 1
        assert Range(choices=(0.25, 0.5)).nearest(1 / 3) == 0.25
        assert Range(choices=([0.0, 0.9],)).nearest([0.5, 0.9]) is None

    @pytest.mark.parametrize(
        "wrong",
        [{}, {"log": (1, 1)}, {"log": (-1, 1)}, {"choices": ()}, {"log": (1, 2), "choices": (1,)}],
    )
    def test_refuses(self, wrong):
        with pytest.raises(ValueError, match=r"give one of|low|choices are empty"):
            Range(**wrong)
