from tests.compare.conftest import small_study

__all__ = ["small_study"]
