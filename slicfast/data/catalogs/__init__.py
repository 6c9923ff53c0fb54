"""The layouts that a data set comes in, one file a kind; `slicfast.data.catalog` chooses among them."""
