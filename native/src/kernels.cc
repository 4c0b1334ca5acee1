// Compiled once for each instruction set; CMakeLists.txt has their flags and definitions.
#include "kernels.h"

#include "backward.h"
#include "few.h"
#include "forward.h"

namespace jaxlstm {
namespace JAXLSTM_ISA {

template <class Cell>
void forward(const Forward& p) {
  if (FewSteps<Cell>::fits(p.sizes)) return FewSteps<Cell>::run(p);
  ForwardSweep<Cell>::run(p);
}

void activations(const float* x, float* of_tanh, float* of_sigmoid, int64_t n) {
  for (int64_t i = 0; i < n; i += W) {
    store(of_tanh + i, tanh(load(x + i, n - i)), n - i);
    store(of_sigmoid + i, sigmoid(load(x + i, n - i)), n - i);
  }
}

#define JAXLSTM_STRING(name) #name
#define JAXLSTM_NAME(name) JAXLSTM_STRING(name)

extern const Kernels table;
const Kernels table = {
    JAXLSTM_NAME(JAXLSTM_ISA), forward<LSTM>, forward<GRU>, BackwardSweep<LSTM>::run,
    BackwardSweep<GRU>::run,   activations,
};

}  // namespace JAXLSTM_ISA
}  // namespace jaxlstm
