#include "kernels/cuda/transfer.h"

#include "host.h"

using namespace pyparam;

PYPARAM_TEST_EXPORT void run_transfer(const TableView* table, char* vector, int dtype, int size,
                                      bool saturate, bool to_vector, bool backwards) {
  const cuda::TransferArguments arguments{*table, vector, static_cast<Dtype>(dtype), size,
                                          saturate};
  if (to_vector) {
    run_on_host<cuda::Flatten>(table->chunk_count, arguments, backwards);
  } else {
    run_on_host<cuda::Scatter>(table->chunk_count, arguments, backwards);
  }
}
