#include "counts.h"

#include <algorithm>
#include <vector>

namespace dumont::ptx {
namespace {

constexpr uint32_t kBanks = 32;
constexpr uint32_t kWordBytes = 4;
constexpr uint32_t kSector = 32;

uint32_t distinct(std::vector<uint64_t>& values) {
    std::sort(values.begin(), values.end());
    return static_cast<uint32_t>(std::unique(values.begin(), values.end()) - values.begin());
}

}  // namespace

// A wavefront serves one word of each bank; 8-byte accesses go by half warps, 16-byte accesses by quarters.
void Counts::shared_access(const uint64_t* addresses, uint32_t lanes, uint32_t size) {
    const uint32_t together = kBanks * kWordBytes / std::max(size, kWordBytes);
    std::vector<uint64_t> all;
    for (uint32_t first = 0; first < lanes; first += together) {
        std::vector<uint64_t> words[kBanks];
        for (uint32_t lane = first; lane < std::min(lanes, first + together); ++lane) {
            for (uint64_t word = addresses[lane] / kWordBytes; word * kWordBytes < addresses[lane] + size; ++word) {
                words[word % kBanks].push_back(word);
                all.push_back(word);
            }
        }
        uint32_t wavefronts = 1;
        for (std::vector<uint64_t>& of_bank : words) wavefronts = std::max(wavefronts, distinct(of_bank));
        shared_wavefronts += wavefronts;
    }
    ++shared_accesses;
    active_lanes += lanes;
    shared_least += (distinct(all) + kBanks - 1) / kBanks;
}

void Counts::global_access(const uint64_t* addresses, uint32_t lanes, uint32_t size) {
    std::vector<uint64_t> sectors, bytes;
    for (uint32_t lane = 0; lane < lanes; ++lane) {
        for (uint64_t byte = addresses[lane]; byte < addresses[lane] + size; ++byte) bytes.push_back(byte);
        for (uint64_t sector = addresses[lane] / kSector; sector * kSector < addresses[lane] + size; ++sector) {
            sectors.push_back(sector);
        }
    }
    ++global_accesses;
    active_lanes += lanes;
    global_sectors += distinct(sectors);
    global_least += (distinct(bytes) + kSector - 1) / kSector;
}

std::string Counts::json() const {
    static const char* const kNames[kCountClasses] = {"integer", "compare", "move",  "branch", "collective", "barrier",
                                                      "global",  "shared",  "local", "atomic", "other"};
    std::string text = "{";
    const auto add = [&text](const std::string& name, uint64_t value) {
        text += (text.size() == 1 ? "\"" : ", \"") + name + "\": " + std::to_string(value);
    };
    for (uint32_t i = 0; i < kCountClasses; ++i) add(kNames[i], instructions[i]);
    add("divergent_branches", divergent_branches);
    add("memory_lanes", active_lanes);
    add("shared_accesses", shared_accesses);
    add("shared_wavefronts", shared_wavefronts);
    add("shared_wavefronts_least", shared_least);
    add("global_accesses", global_accesses);
    add("global_sectors", global_sectors);
    add("global_sectors_least", global_least);
    return text + "}";
}

}  // namespace dumont::ptx
