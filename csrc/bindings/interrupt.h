#pragma once

namespace pyparam {

// From here on, Ctrl-C ends a long pass that only reads.
void answer_signals();

}  // namespace pyparam
